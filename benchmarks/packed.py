"""Frames from a pack against one file a frame: random reads, an epoch, the loader, disk.

    python -m benchmarks.packed

Writes a tree of 200,000 JPEGs (about 1 GB) and its pack into --scratch, once. What is read with
nothing cached is read in processes of their own, and needs root to drop the caches.
"""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.frames import CLIP, HEIGHT, SPLITS, WIDTH, grow, options, pillow_test, race
from reid.config import Clip
from reid.data import index, pack
from reid.data.dataset import TrackletDataset
from reid.data.frames import Files, Frames
from reid.data.loading import loader
from reid.data.packed import Packed
from reid.data.resize import prepare
from reid.data.sampler import sample_frames, sequential_batches

COLD = 150
"""Tracklets read with nothing cached."""
AGAIN = (sys.executable, "-m", "benchmarks.packed")


def reads(rounds: int, scratch: Path) -> None:
    """16 random frames of a random tracklet, from files and from a pack; disk used."""
    tree, folder = scratch / "tree", scratch / "pack"
    built = index.build(tree)
    built.write(scratch / "index")
    tracklets = [tracklet for split in built.splits.values() for tracklet in split]
    start = time.perf_counter()
    pack.pack(tracklets, tree, folder, largest_shard=1 << 26)
    seconds = time.perf_counter() - start
    files, packed = Files(tree), Packed(folder, tracklets)
    rng = random.Random(0)
    draws = [(rng.choice(tracklets), rng.sample(range(500), CLIP)) for _ in range(1000)]

    def read(source: Frames) -> None:
        for tracklet, positions in draws:
            source.expect(tracklet, positions)
            for position in positions:
                source.read(tracklet, position)

    result = race(partial(read, packed), partial(read, files), rounds)
    print("| 16 random frames of a tracklet, warm | pack, /s | files, /s | ratio (CPU) | (wall) |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| one thread | {len(draws) / result.wall_ours:,.0f} | "
        f"{len(draws) / result.wall_theirs:,.0f} | {result.ratio:.1f} | {result.wall_ratio:.1f} |"
    )
    used = [sum(path.stat().st_blocks * 512 for path in root.rglob("*")) for root in (folder, tree)]
    frames = sum(len(tracklet.frames) for tracklet in tracklets)
    cold_reads(rounds, scratch)
    print(f"\ndisk: {used[0] / used[1]:.0%} of one file a frame ({used[0] / 1e6:,.0f} MB)")
    if seconds > 1:
        print(f"packing: {frames / seconds:,.0f} files/s")


def cold_reads(rounds: int, scratch: Path) -> None:
    """The same with nothing cached, each time in a process of its own (needs root: drop_caches)."""
    if os.geteuid() != 0:
        print("| nothing cached | not measured: needs root to drop the caches | | | |")
        return
    seconds: dict[str, list[float]] = {"pack": [], "files": []}
    for number in range(rounds):
        for kind, found in seconds.items():
            command = (*AGAIN, "cold-read", kind, str(number), str(scratch))
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(float(done.stdout))
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    rates = [COLD / statistics.median(found) for found in seconds.values()]
    print(f"| nothing cached | {rates[0]:,.0f} | {rates[1]:,.0f} | | {ratio:.1f} |")


def cold_read(kind: str, seed: str, scratch: str) -> None:
    """Print the seconds of reading 16 random frames of each of `COLD` tracklets, uncached."""
    root = Path(scratch)
    files = [root / "index" / f"{split}.parquet" for split in SPLITS]
    tracklets = [tracklet for path in files for tracklet in index.read_split(path)]
    source: Frames = Files(root / "tree") if kind == "files" else Packed(root / "pack", tracklets)
    rng = random.Random(seed)
    draws = [(rng.choice(tracklets), rng.sample(range(500), CLIP)) for _ in range(COLD)]
    Path("/proc/sys/vm/drop_caches").write_text("3")
    start = time.perf_counter()
    for tracklet, positions in draws:
        source.expect(tracklet, positions)
        for position in positions:
            source.read(tracklet, position)
    print(time.perf_counter() - start)


def epoch(rounds: int, scratch: Path) -> None:
    """What an epoch of training reads, nothing cached: 16 frames of each training tracklet."""
    if os.geteuid() != 0:
        print("epoch, nothing cached: not measured, needs root to drop the caches")
        return
    print("| one epoch, nothing cached | seconds | MB from disk | MB of frames | reads |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ("files", "pack"):
        found = []
        for number in range(rounds):
            command = (*AGAIN, "cold-epoch", kind, str(number), str(scratch))
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append([float(value) for value in done.stdout.split()])
        seconds, disk, frames, reads = (
            statistics.median(column) for column in zip(*found, strict=True)
        )
        print(f"| {kind} | {seconds:.2f} | {disk / 1e6:.1f} | {frames / 1e6:.1f} | {reads:,.0f} |")


def cold_epoch(kind: str, seed: str, scratch: str) -> None:
    """Print seconds, bytes from disk, bytes of frames and read calls of one uncached epoch."""
    root = Path(scratch)
    tracklets = index.read_split(root / "index" / "train.parquet")
    source: Frames = Files(root / "tree") if kind == "files" else Packed(root / "pack", tracklets)
    rng = np.random.default_rng(int(seed))
    draws = [(t, sample_frames(len(t.frames), CLIP, rng=rng).tolist()) for t in tracklets]
    Path("/proc/sys/vm/drop_caches").write_text("3")
    before, start = _io(), time.perf_counter()
    frames = 0
    for tracklet, positions in draws:
        source.expect(tracklet, positions)
        frames += sum(len(source.read(tracklet, position)) for position in positions)
    seconds, after = time.perf_counter() - start, _io()
    disk, calls = (after[key] - before[key] for key in ("read_bytes", "syscr"))
    print(seconds, disk, frames, calls)


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def readback(scratch: Path) -> None:
    """Every frame of the pack against its file, byte by byte."""
    splits = [index.read_split(scratch / "index" / f"{split}.parquet") for split in SPLITS]
    tracklets = [tracklet for split in splits for tracklet in split]
    files, packed = Files(scratch / "tree"), Packed(scratch / "pack", tracklets)
    frames = size = 0
    for tracklet in tracklets:
        for position in range(len(tracklet.frames)):
            data = packed.read(tracklet, position)
            assert data == files.read(tracklet, position), packed.name(tracklet, position)
            frames, size = frames + 1, size + len(data)
    print(f"readback: {frames:,} frames, {size:,} bytes, all equal to their files")


class PillowClips(Dataset[tuple[torch.Tensor, int]]):
    """The released video dataset: one file a frame, float tensors from the worker."""

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        chosen = [self._paths[number][i * (len(self._paths[number]) // CLIP)] for i in range(CLIP)]
        return torch.stack([pillow_test(Path(path).read_bytes()) for path in chosen]), number


def loading(rounds: int, scratch: Path) -> None:
    """Both loaders with 2 processes, test transform, batches of 4 clips of 16 frames."""
    tree, folder = scratch / "tree", scratch / "pack"
    tracklets = index.build(tree).splits["train"]
    paths = [[f"{tree}/{t.path}/{name}" for name in t.frames] for t in tracklets]
    passes = 3  # so that starting the processes does not count
    batches = sequential_batches(len(tracklets), batch_size=4) * passes

    def ours(place: Path | None) -> None:
        dataset = TrackletDataset(tracklets, tree, clip=Clip(), train=False, pack=place)
        for batch in loader(dataset, batches, workers=2):
            assert batch.frames.dtype == torch.uint8

    def theirs() -> None:
        for _ in DataLoader(PillowClips(paths * passes), batch_size=4, num_workers=2):
            pass

    frames = len(tracklets) * passes * CLIP
    print("| loader, 2 processes | ours, frames/s | Pillow, frames/s | ratio (CPU) | (wall) |")
    print("| --- | --- | --- | --- | --- |")
    for name, place in {"a pack": folder, "one file a frame": None}.items():
        result = race(partial(ours, place), theirs, rounds)
        print(
            f"| uint8 from {name}, to be normalized on the device "
            f"| {frames / result.wall_ours:,.0f} | {frames / result.wall_theirs:,.0f} "
            f"| {result.ratio:.1f} | {result.wall_ratio:.1f} |"
        )


def main() -> None:
    """Parse the command line and run."""
    cold = {"cold-read": cold_read, "cold-epoch": cold_epoch}
    if len(sys.argv) > 1 and sys.argv[1] in cold:
        cold[sys.argv[1]](*sys.argv[2:])
        return
    arguments = options(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    prepare(HEIGHT, WIDTH)
    grow(arguments.scratch / "tree")
    reads(arguments.rounds, arguments.scratch)
    print()
    epoch(arguments.rounds, arguments.scratch)
    print()
    readback(arguments.scratch)
    print()
    loading(arguments.rounds, arguments.scratch)


if __name__ == "__main__":
    main()

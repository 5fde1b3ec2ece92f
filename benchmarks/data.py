"""The data path against plain Pillow and against its own limits, side by side in one run.

    python benchmarks/data.py decode       decode + bicubic resize + normalise, by crop height
    python benchmarks/data.py augment      the training transform
    python benchmarks/data.py index        listing a tree of files against the released glob
    python benchmarks/data.py check        every frame decoded, as `reid check` does
    python benchmarks/data.py reads        16 random frames of a tracklet: files against a pack
    python benchmarks/data.py epoch        bytes that one epoch reads, from files and from a pack
    python benchmarks/data.py readback     every frame of the pack compared with its file
    python benchmarks/data.py loader       the whole loader with 2 processes, packed and not

Only ratios are meant: both sides alternate in one run, the figure is the median of the ratios of
CPU time (loading processes included) over the rounds; wall time stands beside where waiting
matters. The parts from `index` on write a tree of 200,000 JPEGs (about 1 GB) into --scratch.
"Pillow" is the path of the released code written plainly: open, convert, resize, per-frame
transforms, to tensor, normalise.
"""

import argparse
import gc
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from glob import glob
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as TF

from reid.config import Augment, Clip, ColorJitter
from reid.data import index, pack, quality
from reid.data.augment import augment
from reid.data.dataset import TrackletDataset
from reid.data.decode import decode_into
from reid.data.frames import Files, Frames
from reid.data.layout import CAPTURE_POINTS, PROTOCOL_FOLDERS, Tracklet
from reid.data.loading import loader
from reid.data.names import FrameNames, Run
from reid.data.normalise import MEAN, STD, normalise
from reid.data.packed import Packed
from reid.data.resize import prepare
from reid.data.sampler import sample_frames, sequential_batches
from reid.data.stored import write_split

HEIGHT, WIDTH = 256, 128
_SPLITS = ("train", "A2G", "G2A", "A2A")
BANDS = ((12, 32), (32, 64), (64, 128), (128, 257), (12, 257))
ASPECT = 0.35, 0.45
"""Width over height, as of real pedestrians (0.37 to 0.45 on average, by height)."""
CLIP = 16
PAPER = Augment(color_jitter=ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05))


def crops(count: int, band: tuple[int, int], seed: int = 0) -> list[bytes]:
    """JPEGs with heights log-uniform over `band`, person-shaped, textured and noisy."""
    rng = np.random.default_rng(seed)
    encoded = []
    for height in np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), count)).astype(int):
        width = max(4, int(height * rng.uniform(*ASPECT)))
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        stream = BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


class Race(NamedTuple):
    """Medians over the rounds."""

    ours: float
    """CPU seconds."""
    theirs: float
    ratio: float
    """Theirs over ours, of CPU time in the same round."""
    wall_ours: float
    wall_theirs: float
    wall_ratio: float


def _spent() -> tuple[float, float]:
    """CPU seconds of this process and its finished children, and the clock."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), time.perf_counter()


def race(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Race:
    """Run both in turn, `rounds` times after one for warming up."""
    ours(), theirs()
    rows = []
    for _ in range(rounds):
        start = _spent()
        theirs()
        middle = _spent()
        ours()
        end = _spent()
        own, other = (
            (b - a for a, b in zip(middle, end, strict=True)),
            (b - a for a, b in zip(start, middle, strict=True)),
        )
        (own_cpu, own_wall), (other_cpu, other_wall) = own, other
        rows.append(
            (own_cpu, other_cpu, other_cpu / own_cpu, own_wall, other_wall, other_wall / own_wall)
        )
    return Race(*(statistics.median(column) for column in zip(*rows, strict=True)))


def pillow_test(data: bytes) -> torch.Tensor:
    """The released test transform of one frame."""
    with Image.open(BytesIO(data)) as image:
        resized = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return TF.normalize(TF.to_tensor(resized), MEAN, STD)


class PillowTrain:
    """The released training transform of a clip."""

    jitter = transforms.ColorJitter(0.1, 0.1, 0.1, 0.05)

    def __call__(self, clip: Sequence[bytes]) -> torch.Tensor:
        """Frames (T, 3, H, W)."""
        flip, erase = random.random() < 0.5, random.random() < 0.5
        frames = []
        for data in clip:
            with Image.open(BytesIO(data)) as image:
                resized = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            jittered = self.jitter(resized)
            if flip:
                jittered = jittered.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            frame = TF.normalize(TF.to_tensor(jittered), MEAN, STD)
            if erase:
                frame[:, 40:100, 20:80] = 0.45
            frames.append(frame)
        return torch.stack(frames)


def load(encoded: Sequence[bytes], out: torch.Tensor) -> None:
    """Our decode and resize of frames into uint8 (T, 3, H, W)."""
    pixels = out.numpy()
    for slot, data in enumerate(encoded):
        decode_into(data, pixels[slot], decoder="fast", name="generated")


def decode(rounds: int, count: int) -> None:
    """Frames/s a core by crop height, ratio to Pillow, and the largest difference."""
    print("| crop height | ours, frames/s | Pillow, frames/s | ratio | decode only | max diff |")
    print("| --- | --- | --- | --- | --- | --- |")
    batch = torch.empty((CLIP, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    for band in BANDS:
        encoded = crops(count, band)
        clips = [encoded[start : start + CLIP] for start in range(0, count, CLIP)]

        def ours(clips: list[list[bytes]] = clips) -> None:
            for clip in clips:
                load(clip, batch)
                normalise(batch)

        def theirs(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                pillow_test(data)

        def floor(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                simplejpeg.decode_jpeg(data)

        result = race(ours, theirs, rounds)
        limit = race(floor, floor, rounds).ours
        load(clips[0], batch)
        expected = torch.stack([pillow_test(data) for data in clips[0]])
        difference = (normalise(batch) - expected).abs().max()
        print(
            f"| {band[0]}-{band[1] - 1} | {count / result.ours:,.0f} "
            f"| {count / result.theirs:,.0f} | {result.ratio:.1f} "
            f"| {count / limit:,.0f} | {difference:.1e} |"
        )


def augmentation(rounds: int, count: int) -> None:
    """The whole training transform of clips of 16 frames, mixed heights."""
    encoded = crops(count, BANDS[-1])
    clips = [encoded[start : start + CLIP] for start in range(0, count, CLIP)]
    batch = torch.empty((1, CLIP, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    pillow = PillowTrain()

    def ours() -> None:
        for seed, clip in enumerate(clips):
            load(clip, batch[0])
            augment(batch, options=PAPER, seeds=[seed])

    def theirs() -> None:
        for clip in clips:
            pillow(clip)

    result = race(ours, theirs, rounds)
    print("| training transform | ours, frames/s | Pillow, frames/s | ratio |")
    print("| --- | --- | --- | --- |")
    print(
        f"| mixed heights | {count / result.ours:,.0f} | {count / result.theirs:,.0f} "
        f"| {result.ratio:.1f} |"
    )


# -- on disk ---------------------------------------------------------------------------------------


def grow(root: Path) -> None:
    """A DetReIDX tree of 400 tracklets of 500 frames; made once, kept."""
    whole, recipe = root / "whole", f"heights {BANDS[-1]}, aspect {ASPECT}\n"
    if whole.exists() and whole.read_text() == recipe:
        return
    shutil.rmtree(root, ignore_errors=True)  # so that a pack of it is not taken for one of the new
    encoded = crops(2000, BANDS[-1], seed=1)
    sides = {"A2G": ((1, 2, 1, 2, 1), (0, 0)), "G2A": ((0, 0), (1, 2, 1, 2, 1))}
    sides["A2A"] = ((1, 1, 1), (2, 2, 2))
    folders = [("train", person, (0, 1, 1, 1, 2, 2, 2, 0, 1, 2)) for person in range(1, 21)]
    for protocol, parts in sides.items():
        for part, cameras in zip(("query", "gallery"), parts, strict=True):
            folder = f"{PROTOCOL_FOLDERS[protocol]}/{part}"
            folders += [(folder, person, cameras) for person in range(21, 31)]
    turn = cycle(encoded)
    for folder, person, cameras in folders:
        for number, camera in enumerate(cameras):
            height, distance, angle = CAPTURE_POINTS[number]
            tracklet = root / folder / f"{person:04d}" / f"{person:04d}_{number:04d}"
            tracklet.mkdir(parents=True, exist_ok=True)
            head = f"{person:04d}_0_3_2_1_F"
            if camera:
                head = (
                    f"{person:04d}_23_10_2024_09_18_{height:g}_{distance:g}_{angle:g}"
                    f"_3_0_1_1_0_-1_-1_6_0_0_6_152_178_{camera}"
                )
            for frame in range(500):
                (tracklet / f"{head}_{frame:05d}.jpg").write_bytes(next(turn))
    whole.write_text(recipe)


def glob_loader(root: Path) -> list[list[str]]:
    """How the released loader lists a tree: glob and isdir at each level, one name parsed."""

    def folders(path: str) -> list[str]:
        return sorted(d for d in glob(f"{path}/*") if os.path.isdir(d))  # noqa: PTH112, PTH207

    found = []
    parts = [
        f"{name}/{part}" for name in PROTOCOL_FOLDERS.values() for part in ("query", "gallery")
    ]
    for folder in ("train", *parts):
        for person in folders(f"{root}/{folder}"):
            for tracklet in folders(person):
                paths = sorted(glob(f"{tracklet}/*.jpg"))  # noqa: PTH207
                float(paths[0].split("_")[6] if paths[0].count("_") > 12 else 0)
                found.append(paths)
    return found


def listing(rounds: int, scratch: Path) -> None:
    """Files/s of the index, its reload and its memory."""
    tree, folder = scratch / "tree", scratch / "index"
    index.build(tree).write(folder)
    files = [folder / f"{split}.parquet" for split in _SPLITS]

    def theirs() -> object:
        return glob_loader(tree)

    def reload() -> object:
        return [index.read_split(path) for path in files]

    def find(*tests: str) -> Callable[[], object]:
        command = ("find", str(tree), *tests)
        return lambda: subprocess.run(command, check=True, capture_output=True)

    variants: dict[str, Callable[[], object]] = {
        "`find -name '*.jpg'`, names only": find("-name", "*.jpg"),
        "`find -size 0`, every file looked at": find("-size", "0"),
        "folders listed": partial(index.build, tree, check_sizes=False),
        "folders listed, 8 threads": partial(index.build, tree, workers=8, check_sizes=False),
        "every file looked at": partial(index.build, tree),
        "every file looked at, 8 threads": partial(index.build, tree, workers=8),
        "reload of the stored index, once after a listing": reload,
        "check of the stored index, once after a listing": lambda: [
            index.check_fresh(tree, path) for path in files
        ],
    }
    tracklets = [tracklet for path in files for tracklet in index.read_split(path)]
    frames = sum(len(tracklet.frames) for tracklet in tracklets)
    print("| index, warm | ours, files/s | glob, files/s | ratio (CPU) | ratio (wall) |")
    print("| --- | --- | --- | --- | --- |")
    for name, ours in variants.items():
        result = race(ours, theirs, rounds)
        print(
            f"| {name} | {frames / result.wall_ours:,.0f} | {frames / result.wall_theirs:,.0f} "
            f"| {result.ratio:.1f} | {result.wall_ratio:.1f} |"
        )
    full = whole_detreidx(scratch / "full.parquet")
    glob_rate = frames / race(theirs, theirs, rounds).ours
    repeated: dict[str, tuple[Callable[[], object], int]] = {
        "reload of the stored index, again and again": (reload, frames),
        "reload of an index of 11,288 tracklets, 11.75 M frames": (
            partial(index.read_split, full),
            11_288 * 1_041,
        ),
    }
    for name, (read, count) in repeated.items():
        rate = count / race(read, read, rounds).ours
        print(f"| {name} | {rate:,.0f} | {glob_rate:,.0f} (CPU) | {rate / glob_rate:.0f} | |")
    gc.collect()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    kept = index.read_split(full)
    size = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    print(f"\nmemory: {size / 11_288 / 1_041:.1f} bytes a frame ({len(kept):,} tracklets)")


def whole_detreidx(path: Path) -> Path:
    """An index of the size of DetReIDX; its files do not exist."""
    tracklets = []
    for number in range(11_288):
        point = CAPTURE_POINTS[number % 18]
        person, where = number // 31 + 1, "_".join(f"{value:g}" for value in point)
        head = f"{person:04d}_23_10_2024_09_18_{where}_3_0_1_1_0_-1_-1_6_0_0_6_152_178_1"
        names = FrameNames([Run(head, 5, ".jpg", np.arange(1_041, dtype=np.int32))])
        folder = f"{person:04d}_{number:04d}"
        own = (person, folder, f"train/{person:04d}/{folder}", "train", "aerial", 1, 1)
        tracklets.append(Tracklet(*own, *point, names))
    write_split(path, tracklets)
    return path


def checking(_: int, scratch: Path) -> None:
    """Frames/s of looking for damaged ones, once, in this process alone."""
    tree = scratch / "tree"
    splits = index.build(tree, check_sizes=False).splits.values()
    before = _spent()
    report = quality.check([tracklet for split in splits for tracklet in split], tree)
    cpu, wall = (b - a for a, b in zip(before, _spent(), strict=True))
    print(
        f"check: {report.frames:,} frames, {len(report.damaged)} damaged, "
        f"{report.frames / cpu:,.0f} a CPU second, {wall:.0f} s"
    )


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
            command = (sys.executable, __file__, "cold-read", kind, str(number), str(scratch))
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(float(done.stdout))
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    rates = [_COLD / statistics.median(found) for found in seconds.values()]
    print(f"| nothing cached | {rates[0]:,.0f} | {rates[1]:,.0f} | | {ratio:.1f} |")


_COLD = 150


def cold_read(kind: str, seed: str, scratch: str) -> None:
    """Print the seconds of reading 16 random frames of each of `_COLD` tracklets, uncached."""
    root = Path(scratch)
    files = [root / "index" / f"{split}.parquet" for split in _SPLITS]
    tracklets = [tracklet for path in files for tracklet in index.read_split(path)]
    source: Frames = Files(root / "tree") if kind == "files" else Packed(root / "pack", tracklets)
    rng = random.Random(seed)
    draws = [(rng.choice(tracklets), rng.sample(range(500), CLIP)) for _ in range(_COLD)]
    Path("/proc/sys/vm/drop_caches").write_text("3")
    start = time.perf_counter()
    for tracklet, positions in draws:
        source.expect(tracklet, positions)
        for position in positions:
            source.read(tracklet, position)
    print(time.perf_counter() - start)


class PillowClips(Dataset[tuple[torch.Tensor, int]]):
    """The released video dataset: one file a frame, float tensors from the worker."""

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        chosen = [self._paths[number][i * (len(self._paths[number]) // CLIP)] for i in range(CLIP)]
        return torch.stack([pillow_test(Path(path).read_bytes()) for path in chosen]), number


def epoch(rounds: int, scratch: Path) -> None:
    """What an epoch of training reads, nothing cached: 16 frames of each training tracklet."""
    if os.geteuid() != 0:
        print("epoch, nothing cached: not measured, needs root to drop the caches")
        return
    _demand_pack(scratch)
    print("| one epoch, nothing cached | seconds | MB from disk | MB of frames | reads |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ("files", "pack"):
        found = []
        for number in range(rounds):
            command = (sys.executable, __file__, "cold-epoch", kind, str(number), str(scratch))
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


def readback(_: int, scratch: Path) -> None:
    """Every frame of the pack against its file, byte by byte."""
    _demand_pack(scratch)
    splits = [index.read_split(scratch / "index" / f"{split}.parquet") for split in _SPLITS]
    tracklets = [tracklet for split in splits for tracklet in split]
    files, packed = Files(scratch / "tree"), Packed(scratch / "pack", tracklets)
    frames = size = 0
    for tracklet in tracklets:
        for position in range(len(tracklet.frames)):
            data = packed.read(tracklet, position)
            assert data == files.read(tracklet, position), packed.name(tracklet, position)
            frames, size = frames + 1, size + len(data)
    print(f"readback: {frames:,} frames, {size:,} bytes, all equal to their files")


def _demand_pack(scratch: Path) -> None:
    if not (scratch / "pack" / "pack.json").exists():
        raise SystemExit("run the part `reads` first: it makes the pack")


def loading(rounds: int, scratch: Path) -> None:
    """Both loaders with 2 processes, test transform, batches of 4 clips of 16 frames."""
    tree, folder = scratch / "tree", scratch / "pack"
    tracklets = index.build(tree).splits["train"]
    _demand_pack(scratch)
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
            f"| uint8 from {name}, to be normalised on the device "
            f"| {frames / result.wall_ours:,.0f} | {frames / result.wall_theirs:,.0f} "
            f"| {result.ratio:.1f} | {result.wall_ratio:.1f} |"
        )


def main() -> None:
    """Run the parts named on the command line (default: all)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    in_memory = {"decode": decode, "augment": augmentation}
    on_disk = {"index": listing, "check": checking, "reads": reads, "epoch": epoch}
    on_disk |= {"readback": readback, "loader": loading}
    every = (*in_memory, *on_disk)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(every))
    parser.add_argument("--scratch", type=Path, default=Path("resources/benchmark"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=320, help="frames a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare(HEIGHT, WIDTH)
    for name in arguments.parts or every:
        if name in in_memory:
            in_memory[name](arguments.rounds, arguments.frames)
        else:
            grow(arguments.scratch / "tree")
            on_disk[name](arguments.rounds, arguments.scratch)
        print()


if __name__ == "__main__":
    if sys.argv[1:2] == ["cold-read"]:
        cold_read(*sys.argv[2:])
    elif sys.argv[1:2] == ["cold-epoch"]:
        cold_epoch(*sys.argv[2:])
    else:
        main()

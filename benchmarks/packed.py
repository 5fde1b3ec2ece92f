"""Frames from a pack against one file a frame: random reads, an epoch, disk.

    python -m benchmarks.packed

Writes a tree of 200,000 JPEGs (about 1 GB) and its pack into --scratch, once. Reads with nothing
cached run in processes of their own, and need root to drop the caches.
"""

import os
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.frames import CLIP, SPLITS, grow, options, race
from reid.data import index, pack
from reid.data.frames import Files, Frames
from reid.data.packed import Packed
from reid.data.tracklet import Tracklet

AGAIN = (sys.executable, "-m", "benchmarks.packed", "cold")


def source_of(kind: str, scratch: Path, tracklets: list[Tracklet]) -> Frames:
    """Frames of a pack or of files."""
    return Packed(scratch / "pack", tracklets) if kind == "pack" else Files(scratch / "tree")


def read(source: Frames, draws: list[tuple[Tracklet, list[int]]]) -> None:
    """Read the drawn frames of each tracklet."""
    for tracklet, positions in draws:
        source.expect(tracklet, positions)
        for position in positions:
            source.read(tracklet, position)


def draw(tracklets: list[Tracklet], count: int, seed: int) -> list[tuple[Tracklet, list[int]]]:
    """16 random frames of `count` random tracklets."""
    rng = random.Random(seed)
    return [(rng.choice(tracklets), rng.sample(range(500), CLIP)) for _ in range(count)]


def cold(kind: str, seed: str, scratch: str) -> None:
    """Print the seconds of reading 16 random frames of each of 150 tracklets, uncached."""
    folder = Path(scratch)
    files = [folder / "index" / f"{split}.parquet" for split in SPLITS]
    tracklets = [tracklet for path in files for tracklet in index.read_split(path)]
    source, draws = source_of(kind, folder, tracklets), draw(tracklets, 150, int(seed))
    Path("/proc/sys/vm/drop_caches").write_text("3")
    start = time.perf_counter()
    read(source, draws)
    print(time.perf_counter() - start)


def main() -> None:
    """Parse the command line and run."""
    if sys.argv[1:2] == ["cold"]:
        cold(*sys.argv[2:])
        return
    arguments = options(__doc__ or "").parse_args()
    tree, folder = arguments.scratch / "tree", arguments.scratch / "pack"
    grow(tree)
    built = index.build(tree)
    built.write(arguments.scratch / "index")
    tracklets = [tracklet for split in built.splits.values() for tracklet in split]
    start = time.process_time()
    pack.pack(tracklets, tree, folder, largest_shard=1 << 26)
    print(f"packing: {200_000 / (time.process_time() - start):,.0f} files per CPU s")
    start = time.process_time()
    pack.verify(folder)
    print(f"verifying: {200_000 / (time.process_time() - start):,.0f} files per CPU s")
    start = time.process_time()
    sources = [source_of(kind, arguments.scratch, tracklets) for kind in ("pack", "files")]
    print(f"opening: {time.process_time() - start:.2f} CPU s")
    draws = draw(tracklets, 1000, 0)
    result = race(*(partial(read, source, draws) for source in sources), arguments.rounds)
    print(f"warm: {result.ratio:.1f} x files by CPU, {result.wall_ratio:.1f} x by wall")
    seconds: dict[str, list[float]] = {"pack": [], "files": []}
    for number in range(arguments.rounds if os.geteuid() == 0 else 0):
        for kind, measured in seconds.items():
            command = (*AGAIN, kind, str(number), str(arguments.scratch))
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured.append(float(done.stdout))
    ratios = [files / packed for packed, files in zip(*seconds.values(), strict=True)]
    print(f"cold: {statistics.median(ratios or [float('nan')]):.1f} x files by wall")
    used = [sum(path.stat().st_blocks * 512 for path in root.rglob("*")) for root in (folder, tree)]
    print(f"disk: {used[0] / used[1]:.0%} of one file a frame ({used[0] / 1e6:,.0f} MB)")


if __name__ == "__main__":
    main()

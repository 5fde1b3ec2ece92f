"""Index against the listing of the released loader (glob), in files per CPU second.

    python -m benchmarks.listing

Writes a tree of 200,000 JPEGs (about 1 GB) into --scratch, once.
"""

import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from glob import glob
from pathlib import Path

import pyarrow as pa

from benchmarks.frames import SPLITS, grow, options, race
from reid.data import index
from reid.data.stored import write_split
from reid.data.tracklet import CAPTURE_POINTS, FrameNames, Tracklet

FULL = (11_288, 1_041)
"""Tracklets of DetReIDX, and frames of each (mean)."""


def glob_loader(root: Path) -> list[list[str]]:
    """How the released loader lists a tree: glob and isdir at each level, one name parsed."""
    tracklets = []
    for folder in sorted(d for d in glob(f"{root}/**/*_*/", recursive=True) if os.path.isdir(d)):  # noqa: PTH112, PTH207
        paths = sorted(glob(f"{folder}*.jpg"))  # noqa: PTH207
        if paths:
            float(paths[0].split("_")[6] if paths[0].count("_") > 12 else 0)
            tracklets.append(paths)
    return tracklets


def write_full(path: Path) -> None:
    """An index of the size of DetReIDX; its files do not exist."""
    tracklets = []
    for number in range(FULL[0]):
        point, person = CAPTURE_POINTS[number % 18], number // 31 + 1
        measures = "_".join(f"{value:g}" for value in point)
        head = f"{person:04d}_23_10_2024_09_18_{measures}_3_0_1_1_0_-1_-1_6_0_0_6_152_178_1"
        names = FrameNames.of([f"{head}_{frame:05d}.jpg" for frame in range(FULL[1])])
        name = f"{person:04d}_{number:04d}"
        fields = (person, name, f"train/{person:04d}/{name}", "train", "aerial", 1, 1)
        tracklets.append(Tracklet(*fields, *point, names))
    write_split(path, tracklets)


def main() -> None:
    """Parse the command line and run."""
    arguments = options(__doc__ or "").parse_args()
    tree, full = arguments.scratch / "tree", arguments.scratch / "full.parquet"
    grow(tree)
    index.build(tree).write(arguments.scratch / "index")
    write_full(full)
    files = [arguments.scratch / "index" / f"{split}.parquet" for split in SPLITS]
    count = sum(len(t.frames) for path in files for t in index.read_split(path))
    variants: dict[str, tuple[int, Callable[[], object]]] = {
        "index, folders listed only": (count, partial(index.build, tree, check_sizes=False)),
        "index, every file looked at": (count, partial(index.build, tree)),
        "reload, 200,000 frames": (count, lambda: [index.read_split(path) for path in files]),
        "reload, 11.75 M frames": (FULL[0] * FULL[1], partial(index.read_split, full)),
        "check of freshness": (count, lambda: [index.check_fresh(tree, path) for path in files]),
    }
    print("| step | files per CPU s | wall s | glob, files per CPU s |\n| --- | --- | --- | --- |")
    for name, (frames, step) in variants.items():
        result = race(step, partial(glob_loader, tree), arguments.rounds)
        rates = frames / result.ours, count / result.theirs
        print(f"| {name} | {rates[0]:,.0f} | {result.wall_ours:.2f} | {rates[1]:,.0f} |")
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    tracklets = index.read_split(full)
    held = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    print(f"\n{full.stat().st_size / 1e6:.1f} MB on disk, {held / 1e6:.0f} MB in memory, ", end="")
    print(f"{held / FULL[0] / FULL[1]:.1f} bytes a frame of {len(tracklets):,} tracklets")


if __name__ == "__main__":
    main()

"""Listing a tree of 200,000 files against the released glob and `find`; reload, memory, check.

    python -m benchmarks.listing

Writes the tree (about 1 GB) into --scratch, once.
"""

import gc
import os
import subprocess
import tracemalloc
from collections.abc import Callable
from functools import partial
from glob import glob
from pathlib import Path

import numpy as np
import pyarrow as pa
from reid.data.names import FrameNames, Run

from benchmarks.frames import SPLITS, grow, options, race, spent
from reid.data import index, quality
from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.data.stored import write_split
from reid.data.tracklet import CAPTURE_POINTS, Tracklet


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
    files = [folder / f"{split}.parquet" for split in SPLITS]

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


def checking(scratch: Path) -> None:
    """Frames/s of looking for damaged ones, once, in this process alone."""
    tree = scratch / "tree"
    splits = index.build(tree, check_sizes=False).splits.values()
    before = spent()
    report = quality.check([tracklet for split in splits for tracklet in split], tree)
    cpu, wall = (b - a for a, b in zip(before, spent(), strict=True))
    print(
        f"check: {report.frames:,} frames, {len(report.damaged)} damaged, "
        f"{report.frames / cpu:,.0f} a CPU second, {wall:.0f} s"
    )


def main() -> None:
    """Parse the command line and run."""
    arguments = options(__doc__ or "").parse_args()
    grow(arguments.scratch / "tree")
    listing(arguments.rounds, arguments.scratch)
    print()
    checking(arguments.scratch)


if __name__ == "__main__":
    main()

"""The index: one Parquet file per split with a row per tracklet, and what was left out of it.

index/{train,A2G,G2A,A2A}.parquet   tracklets: folder, identity, camera, metadata, frames
index/times.parquet                 when each folder last changed (reid.data.stored)
index/rejected.csv                  every file that is not in the index, and why
index/summary.json                  counts and checks
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from reid.chain import Chain
from reid.claim import remove_temporaries
from reid.config import Config, chosen
from reid.data.detreidx import CAMERAS
from reid.data.layouts import LAYOUTS
from reid.data.lists import Rejected, read_damaged, read_rejected, write_changed, write_csv
from reid.data.scan import Contents, Read, Source, read_folder
from reid.data.stored import (
    check_fresh,
    demand_folder,
    read_cameras,
    read_split,
    write_split,
    write_times,
)
from reid.data.summary import check_limits, is_placed, summarize
from reid.data.tracklet import Subset, Tracklet
from reid.errors import UserError
from reid.paths import SPLITS, Results
from reid.progress import Progress

__all__ = ["Index", "build", "check_fresh", "read_split", "run"]

_OTHER: dict[str, Subset] = {"query": "gallery", "gallery": "query"}


@dataclass(frozen=True)
class Index:
    """Tracklets by split, and the files that belong to none."""

    splits: Mapping[str, tuple[Tracklet, ...]]
    """`train` and the protocols; a protocol holds its query tracklets, then its gallery."""
    rejected: tuple[Rejected, ...]
    cameras: tuple[str, ...] = CAMERAS
    """What camera 0, 1, ... is."""
    times: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """When each folder of frames last changed, by path: ns since the epoch."""

    def write(self, folder: Path) -> None:
        """Write every part, each atomically; those that have this content are left as they are."""
        remove_temporaries(folder, _is_part)
        self.write_report(folder)
        for split, tracklets in self.splits.items():
            write_split(folder / f"{split}.parquet", tracklets, cameras=self.cameras)
        write_times(folder, self.times, self.splits)  # last: no new time for an old index

    def write_report(self, folder: Path) -> None:
        """Write `rejected.csv` and `summary.json` only."""
        write_csv(folder / "rejected.csv", Rejected._fields, self.rejected)
        summary = summarize(self.splits, self.rejected, self.cameras)
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_changed(folder / "summary.json", text.encode())

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read what `write` wrote, without times. Raises UserError on a missing or damaged part."""
        splits = {
            split: read_split(folder / f"{split}.parquet")
            for split in SPLITS
            if split == "train" or (folder / f"{split}.parquet").exists()
        }
        rejected = tuple(read_rejected(folder / "rejected.csv"))
        return cls(splits, rejected, read_cameras(folder / "train.parquet"))


def build(
    root: Path,
    *,
    layout: str = "detreidx",
    protocols: Sequence[str] = ("A2G", "G2A", "A2A"),
    manifest: Path | None = None,
    workers: int | None = None,
    check_sizes: bool = True,
    damaged: Mapping[str, str] | None = None,
    quiet: bool = True,
) -> Index:
    """Index the dataset under `root`; nothing is written there.

    `layout` is the convention of folders and file names (docs/DATA.md), `workers` the number of
    threads (default 8). Without `check_sizes` folders are listed but files not looked at, so that
    empty ones stay; `damaged` holds reasons by path of files to leave out (`reid check`). `quiet`
    prints no progress. Raises UserError when the root or something that the layout demands is
    missing.
    """
    convention = chosen(LAYOUTS, layout, "dataset.layout")
    for protocol in protocols:
        if protocol not in convention.protocols:
            raise UserError(
                f"dataset.protocols: layout {layout} has no protocol {protocol} "
                f"(it has {', '.join(convention.protocols)})"
            )
    demand_folder(root, "dataset.root names the folder of the dataset")
    contents = convention.find(root, protocols, manifest)
    read = partial(
        read_folder,
        root,
        complete=contents.complete,
        check_sizes=check_sizes,
        damaged=damaged or {},
    )
    by_split, rejected, times = _read_folders(contents, read, workers or 8, quiet=quiet)
    splits = _assemble(by_split, protocols, convention.swapped)
    cameras = convention.cameras
    if cameras is None:
        highest = max((t.camera for split in splits.values() for t in split), default=0)
        cameras = tuple(f"camera{number}" for number in range(highest + 1))
    return Index(splits, (*contents.rejected, *rejected), cameras, times)


def _read_folders(
    contents: Contents,
    read_one: Callable[[str, Sequence[Source]], Read],
    workers: int,
    *,
    quiet: bool,
) -> tuple[dict[str, list[Tracklet]], list[Rejected], dict[str, int]]:
    """Tracklets by split, in the order of `contents`, rejected files, and times of folders."""
    folders: dict[tuple[str, str], list[Source]] = {}
    for source in contents.sources:
        folders.setdefault((source.split, source.folder), []).append(source)
    by_split: dict[str, list[Tracklet]] = {}
    rejected: list[Rejected] = []
    times: dict[str, int] = {}
    progress = Progress("index", len(folders), "folders")
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda key: read_one(key[1], folders[key]), folders)
        for (split, folder), read in zip(folders, results, strict=True):
            by_split.setdefault(split, []).extend(read.tracklets)
            rejected += read.rejected
            times[folder] = min(read.modified, times.get(folder, read.modified))
            if not quiet:
                progress.advance()
    return by_split, rejected, times


def _is_part(name: str) -> bool:
    """Whether a file of this name belongs to an index."""
    parts = (f"{stem}.parquet" for stem in (*SPLITS, "times"))
    return name in ("rejected.csv", "summary.json", *parts)


def _assemble(
    by_split: Mapping[str, Sequence[Tracklet]], protocols: Sequence[str], swapped: Sequence[str]
) -> dict[str, tuple[Tracklet, ...]]:
    """`train`, and each protocol with its queries first."""
    splits = {"train": tuple(by_split.get("train", ()))}
    for protocol in protocols:
        pool = by_split.get("test", ())
        if protocol in swapped:
            pool = [replace(t, subset=_OTHER[t.subset]) for t in pool]
        chosen = by_split.get(protocol, ()) or [t for t in pool if is_placed(t, protocol)]
        splits[protocol] = tuple(sorted(chosen, key=lambda t: t.subset != "query"))
    return splits


def run(config: Config) -> None:
    """`reid index`: build, report, check, write. Raises UserError as both do."""
    options = config.dataset
    folder = Results.of(config).index("train").parent
    chain = Chain(config)
    with chain.record(chain.steps.index()):
        damaged = {} if options.damaged is None else read_damaged(options.damaged)
        index = build(
            options.root,
            layout=options.layout,
            protocols=options.protocols,
            manifest=options.manifest,
            check_sizes=options.check_sizes,
            damaged={path: f"damaged: {damage}" for path, damage in damaged.items()},
            quiet=False,
        )
        found = {row.path for row in index.rejected}
        if unknown := [path for path in damaged if path not in found]:
            print(
                f"warning: {len(unknown)} frames of {options.damaged} are in no tracklet, the "
                f"first is {unknown[0]}: is it the list of another dataset?"
            )
        index.write_report(folder)
        check_limits(index.splits, index.rejected, options, report=folder / "rejected.csv")
        index.write(folder)
    for split, tracklets in index.splits.items():
        misplaced = [tracklet for tracklet in tracklets if not is_placed(tracklet, split)]
        if misplaced:
            print(
                f"warning: {len(misplaced)} tracklets of {split} are not of its view: "
                f"{misplaced[0].path}"
            )
        frames = sum(len(tracklet.frames) for tracklet in tracklets)
        print(f"{split}: {len(tracklets)} tracklets, {frames} frames")
    print(f"rejected: {len(index.rejected)} files ({folder / 'rejected.csv'})")

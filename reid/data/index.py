"""The index: one Parquet file per split with a row per tracklet, and what was left out of it.

index/{train,A2G,G2A,A2A}.parquet   tracklets: folder, identity, camera, metadata, frames
index/rejected.csv                  every file that is not in the index, and why
index/summary.json                  counts and checks
"""

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from reid.artefacts import SPLITS, Results
from reid.config import Config
from reid.data.checks import check, summarise
from reid.data.damaged import read_damaged
from reid.data.layout import PROTOCOL_FOLDERS, Tracklet
from reid.data.scan import Rejected, Walk, scan_subset
from reid.data.stored import check_fresh, demand_folder, read_split, write_split
from reid.errors import UserError
from reid.files import replacing, write_json

__all__ = ["Index", "build", "check_fresh", "read_split", "run"]


@dataclass(frozen=True)
class Index:
    """Tracklets by split, and the files that belong to none."""

    splits: Mapping[str, tuple[Tracklet, ...]]
    """`train` and the protocols; a protocol holds its query tracklets, then its gallery."""
    rejected: tuple[Rejected, ...]

    def write(self, folder: Path) -> None:
        """Write `<split>.parquet`, `rejected.csv` and `summary.json`, each atomically."""
        self.write_report(folder)
        for split, tracklets in self.splits.items():
            write_split(folder / f"{split}.parquet", tracklets)

    def write_report(self, folder: Path) -> None:
        """Write `rejected.csv` and `summary.json` only."""
        with (
            replacing(folder / "rejected.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as opened,
        ):
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerow(field.name for field in fields(Rejected))
            writer.writerows((rejected.path, rejected.reason) for rejected in self.rejected)
        write_json(folder / "summary.json", summarise(self.splits, self.rejected))

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read what `write` wrote. Raises UserError when a part is missing or damaged."""
        splits = {
            split: read_split(folder / f"{split}.parquet")
            for split in SPLITS
            if split == "train" or (folder / f"{split}.parquet").exists()
        }
        path = folder / "rejected.csv"
        try:
            with path.open(encoding="utf-8", newline="") as opened:
                rejected = tuple(Rejected(**row) for row in csv.DictReader(opened))
        except (OSError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): run `reid index` again") from None
        return cls(splits, rejected)


def build(
    root: Path,
    *,
    layout: Literal["detreidx"] = "detreidx",
    protocols: Sequence[str] = ("A2G", "G2A", "A2A"),
    workers: int | None = None,
    check_sizes: bool = True,
    damaged: Mapping[str, str] | None = None,
    quiet: bool = True,
) -> Index:
    """Walk a dataset and list its tracklets; nothing is decoded.

    `layout` is the folder and file-name convention (reid.data.layout), `workers` the number of
    threads (default: 8; they wait for the file system). Without `check_sizes` folders are listed
    but files not looked at, so that empty ones stay; `damaged` holds reasons by path of files to
    leave out (`reid check`); `quiet` prints no progress. Raises UserError when the root, train/
    or a protocol's query/ or gallery/ folder is missing.
    """
    if layout != "detreidx":
        raise UserError(f"dataset.layout: no layout {layout!r} (known: detreidx)")
    demand_folder(root, "dataset.root names the folder that holds train/ and the protocols")
    demand_folder(root / "train", "expected the training identities: is dataset.root right?")
    for protocol in protocols:
        for part in ("query", "gallery"):
            demand_folder(
                root / PROTOCOL_FOLDERS[protocol] / part,
                f"expected for protocol {protocol}: add it or leave {protocol} out of "
                "dataset.protocols",
            )
    known = damaged or {}
    walks = {"train": [Walk("train", "train", check_sizes, known)]}
    for protocol in protocols:
        folder = PROTOCOL_FOLDERS[protocol]
        walks[protocol] = [
            Walk(f"{folder}/query", "query", check_sizes, known),
            Walk(f"{folder}/gallery", "gallery", check_sizes, known),
        ]
    with ThreadPoolExecutor(workers or 8) as pool:
        found = {
            split: [scan_subset(root, walk, pool, quiet=quiet) for walk in parts]
            for split, parts in walks.items()
        }
    return Index(
        {
            split: tuple(t for part in parts for t in part.tracklets)
            for split, parts in found.items()
        },
        tuple(r for parts in found.values() for part in parts for r in part.rejected),
    )


def run(config: Config) -> None:
    """`reid index`: build, report, check, write. Raises UserError as `build` and `check` do."""
    options = config.dataset
    folder = Results.of(options.name).index("train").parent
    index = build(
        options.root,
        layout=options.layout,
        protocols=options.protocols,
        check_sizes=options.check_sizes,
        damaged=None if options.damaged is None else read_damaged(options.damaged),
        quiet=False,
    )
    index.write_report(folder)
    check(index.splits, index.rejected, options, report=folder / "rejected.csv")
    index.write(folder)
    for split, tracklets in index.splits.items():
        frames = sum(len(tracklet.frames) for tracklet in tracklets)
        print(f"{split}: {len(tracklets)} tracklets, {frames} frames")
    print(f"rejected: {len(index.rejected)} files ({folder / 'rejected.csv'})")

"""The index: one Parquet file per split with a row per tracklet, and what was left out of it.

index/{train,A2G,G2A,A2A}.parquet   tracklets: folder, identity, camera, metadata, frames
index/rejected.csv                  every file that is not in the index, and why
index/summary.json                  counts and checks
"""

import csv
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from reid.artifacts import SPLITS, Results
from reid.claim import remove_temporaries
from reid.config import Config, nearest
from reid.data import duplicates
from reid.data.checks import check, is_placed, summarize
from reid.data.damaged import read_damaged
from reid.data.journal import Journal
from reid.data.layout import CAMERAS, Subset, Tracklet
from reid.data.layouts import LAYOUTS
from reid.data.scan import Found, Look, Plan, Rejected, Unit, scan_units
from reid.data.stored import (
    check_fresh,
    count_cameras,
    demand_folder,
    read_cameras,
    read_split,
    write_split,
)
from reid.errors import UserError
from reid.files import replacing, sha256_of_json, write_json
from reid.sources import code_hash

__all__ = ["Index", "build", "check_fresh", "count_cameras", "read_split", "run"]

_OTHER: dict[str, Subset] = {"query": "gallery", "gallery": "query"}


@dataclass(frozen=True)
class Index:
    """Tracklets by split, and the files that belong to none."""

    splits: Mapping[str, tuple[Tracklet, ...]]
    """`train` and the protocols; a protocol holds its query tracklets, then its gallery."""
    rejected: tuple[Rejected, ...]
    cameras: tuple[str, ...] = CAMERAS
    """What camera 0, 1, ... is."""
    duplicates: Mapping[str, int] | None = None
    """Counts of frames of equal content (reid.data.duplicates), when they were looked for."""

    def write(self, folder: Path) -> None:
        """Write `<split>.parquet`, `rejected.csv` and `summary.json`, each atomically."""
        remove_temporaries(folder, _is_part)
        self.write_report(folder)
        for split, tracklets in self.splits.items():
            path = folder / f"{split}.parquet"
            write_split(path, tracklets, cameras=self.cameras)

    def write_report(self, folder: Path) -> None:
        """Write `rejected.csv` and `summary.json` only."""
        with (
            replacing(folder / "rejected.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as opened,
        ):
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerow(field.name for field in fields(Rejected))
            writer.writerows((rejected.path, rejected.reason) for rejected in self.rejected)
        summary = summarize(self.splits, self.rejected, self.cameras)
        if self.duplicates is not None:
            summary["duplicates"] = dict(self.duplicates)
        write_json(folder / "summary.json", summary)

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
    journal: Path | None = None,
    quiet: bool = True,
) -> Index:
    """Index the dataset under `root`; nothing is written there.

    `layout` is the convention of folders and file names (docs/DATA.md), `workers` the number of
    threads (default: 8, once the file system makes one wait). Without `check_sizes` folders are
    listed but files not looked at, so that empty ones stay; `damaged` holds reasons by path of
    files to leave out (`reid check`). With `journal` a killed index goes on where it was; the file
    is deleted when all is scanned. `quiet` prints no progress. Raises UserError when the root or
    something that the layout demands is missing.
    """
    if layout not in LAYOUTS:
        raise UserError(f"dataset.layout: no layout {layout!r}{nearest(layout, list(LAYOUTS))}")
    convention = LAYOUTS[layout]
    for protocol in protocols:
        if protocol not in convention.protocols:
            raise UserError(
                f"dataset.protocols: layout {layout} has no protocol {protocol} "
                f"(it has {', '.join(convention.protocols)})"
            )
    demand_folder(root, "dataset.root names the folder of the dataset")
    look = Look(root, check_sizes, damaged or {})
    plan = convention.plan(look, protocols, manifest)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers or 8))
        at_once = workers is not None
        scan = partial(scan_units, plan.units, pool=pool, at_once=at_once, quiet=quiet)
        if journal is None:
            found = scan(lambda unit: unit.scan())
        else:
            kept = stack.enter_context(Journal(journal, root, _key(look, layout, plan)))
            found = scan(kept.scan)
            kept.remove()
    splits = _assemble(plan.units, found, protocols, convention.swapped)
    cameras = convention.cameras
    if cameras is None:
        highest = max((t.camera for split in splits.values() for t in split), default=0)
        cameras = tuple(f"camera{number}" for number in range(highest + 1))
    rejected = (*plan.rejected, *(one for part in found for one in part.rejected))
    return Index(splits, rejected, cameras)


def _is_part(name: str) -> bool:
    """Whether a file of this name belongs to an index."""
    return name in ("rejected.csv", "summary.json", *(f"{split}.parquet" for split in SPLITS))


def _key(look: Look, layout: str, plan: Plan) -> str:
    """What entries of a journal hold for."""
    options = [str(look.root.resolve()), look.check_sizes, dict(look.damaged), layout, plan.stamp]
    return sha256_of_json([options, code_hash("reid.data.index")])


def _assemble(
    units: Sequence[Unit],
    found: Sequence[Found],
    protocols: Sequence[str],
    swapped: Sequence[str],
) -> dict[str, tuple[Tracklet, ...]]:
    by_split: dict[str, list[Tracklet]] = {}
    for unit, part in zip(units, found, strict=True):
        by_split.setdefault(unit.split, []).extend(part.tracklets)
    splits = {"train": tuple(by_split.get("train", ()))}
    for protocol in protocols:
        pool = by_split.get("test", [])
        if protocol in swapped:
            pool = [replace(t, subset=_OTHER[t.subset]) for t in pool]
        chosen = by_split.get(protocol, ()) or [t for t in pool if is_placed(t, protocol)]
        splits[protocol] = tuple(sorted(chosen, key=lambda t: t.subset != "query"))
    return splits


def run(config: Config, *, look_for_duplicates: bool = False) -> None:
    """`reid index`: build, report, check, write. Raises UserError as `build` and `check` do."""
    options = config.dataset
    folder = Results.of(options.name).index("train").parent
    damaged = {} if options.damaged is None else read_damaged(options.damaged)
    index = build(
        options.root,
        layout=options.layout,
        protocols=options.protocols,
        manifest=options.manifest,
        check_sizes=options.check_sizes,
        damaged={path: f"damaged: {damage}" for path, damage in damaged.items()},
        journal=folder / "scan.journal",
        quiet=False,
    )
    (folder / "duplicates.csv").unlink(missing_ok=True)
    if look_for_duplicates:
        found = duplicates.find(index.splits, options.root, quiet=False)
        found.write(folder / "duplicates.csv")
        index = replace(index, duplicates=found.summary())
        print(f"duplicates: {len(found.bad)} bad ones ({folder / 'duplicates.csv'})")
    index.write_report(folder)
    check(index.splits, index.rejected, options, report=folder / "rejected.csv")
    index.write(folder)
    for split, tracklets in index.splits.items():
        odd = [tracklet for tracklet in tracklets if not is_placed(tracklet, split)]
        if odd:
            print(f"warning: {len(odd)} tracklets of {split} are not of its view: {odd[0].path}")
        frames = sum(len(tracklet.frames) for tracklet in tracklets)
        print(f"{split}: {len(tracklets)} tracklets, {frames} frames")
    print(f"rejected: {len(index.rejected)} files ({folder / 'rejected.csv'})")

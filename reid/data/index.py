"""The index: one Parquet file per split with a row per tracklet, and what was left out of it.

index/{train,A2G,G2A,A2A}.parquet   tracklets: folder, identity, camera, metadata, frames
index/rejected.csv                  every file that is not in the index, and why
index/summary.json                  counts and checks
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from reid.artefacts import SPLITS, Results
from reid.config import Config, Dataset
from reid.data.layout import PROTOCOL_FOLDERS, Tracklet
from reid.data.scan import Rejected, scan_subset
from reid.errors import UserError
from reid.files import replacing, write_json

_COLUMNS: dict[str, pa.DataType] = {
    "identity": pa.int64(),
    "name": pa.string(),
    "path": pa.string(),
    "subset": pa.string(),
    "view": pa.string(),
    "camera": pa.int8(),
    "session": pa.int8(),
    "altitude": pa.float64(),
    "distance": pa.float64(),
    "angle": pa.float64(),
    "frames": pa.list_(pa.string()),
    "modified": pa.int64(),
}
_SCHEMA = pa.schema(_COLUMNS)


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
            columns = {name: [getattr(t, name) for t in tracklets] for name in _SCHEMA.names}
            with replacing(folder / f"{split}.parquet") as temporary:
                pq.write_table(pa.table(columns, schema=_SCHEMA), temporary)

    def write_report(self, folder: Path) -> None:
        """Write `rejected.csv` and `summary.json` only."""
        with (
            replacing(folder / "rejected.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as opened,
        ):
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerow(field.name for field in fields(Rejected))
            writer.writerows((rejected.path, rejected.reason) for rejected in self.rejected)
        write_json(folder / "summary.json", summarise(self))

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

    @property
    def rejected_share(self) -> float:
        """Rejected files (and empty folders) over all files seen; 0 without any."""
        kept = sum(len(tracklet.frames) for split in self.splits.values() for tracklet in split)
        return len(self.rejected) / max(1, kept + len(self.rejected))


def build(
    root: Path,
    *,
    layout: Literal["detreidx"] = "detreidx",
    protocols: Sequence[str] = ("A2G", "G2A", "A2A"),
    workers: int | None = None,
) -> Index:
    """Walk a dataset and list its tracklets; nothing is decoded.

    `layout` is the folder and file-name convention (reid.data.layout), `workers` the number of
    threads (default: 8; they wait for the file system). Raises UserError when the root, train/
    or a protocol's query/ or gallery/ folder is missing or without a single tracklet.
    """
    if layout != "detreidx":
        raise UserError(f"dataset.layout: no layout {layout!r} (known: detreidx)")
    _demand_folder(root, "dataset.root names the folder that holds train/ and the protocols")
    _demand_folder(root / "train", "expected the training identities: is dataset.root right?")
    for protocol in protocols:
        for part in ("query", "gallery"):
            _demand_folder(
                root / PROTOCOL_FOLDERS[protocol] / part,
                f"expected for protocol {protocol}: add it or leave {protocol} out of "
                "dataset.protocols",
            )
    with ThreadPoolExecutor(workers or 8) as pool:
        found = {"train": [scan_subset(root, "train", "train", pool)]}
        for protocol in protocols:
            folder = PROTOCOL_FOLDERS[protocol]
            found[protocol] = [
                scan_subset(root, f"{folder}/query", "query", pool),
                scan_subset(root, f"{folder}/gallery", "gallery", pool),
            ]
    return Index(
        {
            split: tuple(t for part in parts for t in part.tracklets)
            for split, parts in found.items()
        },
        tuple(r for parts in found.values() for part in parts for r in part.rejected),
    )


def read_split(path: Path) -> tuple[Tracklet, ...]:
    """Tracklets of one split's Parquet file. Raises UserError when missing or damaged."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid index`") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not an index ({reason}): run `reid index` again") from None
    if not table.schema.equals(_SCHEMA):
        raise UserError(f"{path} has other columns than an index: run `reid index` again")
    columns: dict[str, list[Any]] = table.to_pydict()
    columns["frames"] = [tuple(frames) for frames in columns["frames"]]
    return tuple(
        Tracklet(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )


def check_fresh(root: Path, path: Path) -> None:
    """Compare a split's index with the disk: every tracklet folder there and unmodified.

    Raises UserError naming the first folder that is gone or was changed after indexing.
    """
    _demand_folder(root, f"{path} was made from it: correct dataset.root or bring it back")
    for tracklet in read_split(path):
        folder = root / tracklet.path
        try:
            modified = folder.stat().st_mtime_ns
        except OSError:
            raise UserError(
                f"{folder} is gone, but {path} lists it: correct dataset.root or run "
                "`reid index` again"
            ) from None
        if modified != tracklet.modified:
            raise UserError(f"{folder} changed after {path} was made: run `reid index` again")


def unmatched_queries(tracklets: Iterable[Tracklet]) -> tuple[Tracklet, ...]:
    """Queries of a protocol without a positive: same identity from another camera.

    Gallery tracklets of the query's identity and camera are junk in the evaluation.
    """
    tracklets = tuple(tracklets)
    seen: dict[int, set[int]] = {}
    for tracklet in tracklets:
        if tracklet.subset == "gallery":
            seen.setdefault(tracklet.identity, set()).add(tracklet.camera)
    return tuple(
        tracklet
        for tracklet in tracklets
        if tracklet.subset == "query" and not seen.get(tracklet.identity, set()) - {tracklet.camera}
    )


def shared_identities(index: Index) -> tuple[int, ...]:
    """Identities that are both in training and in a protocol, ascending."""
    train = {tracklet.identity for tracklet in index.splits["train"]}
    test = {t.identity for split in index.splits if split != "train" for t in index.splits[split]}
    return tuple(sorted(train & test))


def summarise(index: Index) -> dict[str, Any]:
    """Counts and checks as JSON-able values: what `summary.json` holds."""
    summary: dict[str, Any] = {}
    for split, tracklets in index.splits.items():
        subsets = dict.fromkeys(t.subset for t in tracklets)
        summary[split] = {
            subset: _counts([t for t in tracklets if t.subset == subset]) for subset in subsets
        }
        if split != "train":
            summary[split]["unmatched_queries"] = len(unmatched_queries(tracklets))
    reasons = Counter(rejected.reason for rejected in index.rejected)
    return {
        "splits": summary,
        "rejected": {"files": len(index.rejected), "share": index.rejected_share}
        | {"reasons": dict(reasons.most_common())},
        "identities_in_train_and_test": list(shared_identities(index)),
    }


def _counts(tracklets: Sequence[Tracklet]) -> dict[str, Any]:
    lengths = [len(tracklet.frames) for tracklet in tracklets]
    aerial = [tracklet for tracklet in tracklets if tracklet.view == "aerial"]
    return {
        "identities": len({tracklet.identity for tracklet in tracklets}),
        "tracklets": len(tracklets),
        "frames": sum(lengths),
        "frames_per_tracklet": {
            "least": min(lengths, default=0),
            "mean": sum(lengths) / max(1, len(lengths)),
            "most": max(lengths, default=0),
        },
        "tracklets_by_camera": {
            name: sum(tracklet.camera == camera for tracklet in tracklets)
            for camera, name in enumerate(("ground", "aerial_session1", "aerial_session2"))
        },
        "share_with_metadata": sum(t.has_metadata for t in tracklets) / max(1, len(tracklets)),
        "aerial_outside_capture_points": sum(t.capture_point is None for t in aerial),
    }


def check(index: Index, options: Dataset, *, report: Path) -> None:
    """Hold an index against the limits of the configuration; `report` is named in errors.

    Raises UserError for too many rejected files, a split without tracklets, identities both in
    training and test, or too many queries without a positive.
    """
    if index.rejected_share > options.max_rejected_share:
        first = index.rejected[0]
        raise UserError(
            f"{len(index.rejected)} files ({index.rejected_share:.3%}) of {options.root} are "
            f"unusable, the first is {first.path}: {first.reason}; all are in {report}: repair "
            f"them or raise dataset.max_rejected_share ({options.max_rejected_share:g})"
        )
    for split, tracklets in index.splits.items():
        found = {tracklet.subset for tracklet in tracklets}
        for subset in ("train",) if split == "train" else ("query", "gallery"):
            if subset not in found:
                where = "train/" if split == "train" else f"{PROTOCOL_FOLDERS[split]}/{subset}"
                raise UserError(f"{options.root / where} holds no tracklet: expected PID/TRACKLET/")
    shared = shared_identities(index)
    if shared and not options.allow_shared_identities:
        raise UserError(
            f"{len(shared)} identities are both in train/ and in a test protocol, the first is "
            f"{shared[0]}: scores would be of people seen in training; move them to one side, or "
            "set dataset.allow_shared_identities if the numbers were given anew"
        )
    for split, tracklets in index.splits.items():
        queries = [tracklet for tracklet in tracklets if tracklet.subset == "query"]
        unmatched = unmatched_queries(tracklets)
        if len(unmatched) > options.max_unmatched_query_share * len(queries):
            raise UserError(
                f"protocol {split}: {len(unmatched)} of {len(queries)} queries have no positive "
                f"(their identity from another camera) in the gallery, the first is "
                f"{unmatched[0].path}: add the gallery tracklets or raise "
                f"dataset.max_unmatched_query_share ({options.max_unmatched_query_share:g})"
            )


def run(config: Config) -> None:
    """`reid index`: build, report, check, write. Raises UserError as `build` and `check` do."""
    options = config.dataset
    folder = Results.of(options.name).index("train").parent
    index = build(options.root, layout=options.layout, protocols=options.protocols)
    index.write_report(folder)
    check(index, options, report=folder / "rejected.csv")
    index.write(folder)
    for split, tracklets in index.splits.items():
        frames = sum(len(tracklet.frames) for tracklet in tracklets)
        print(f"{split}: {len(tracklets)} tracklets, {frames} frames")
    print(f"rejected: {len(index.rejected)} files ({folder / 'rejected.csv'})")


def _demand_folder(folder: Path, hint: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {hint}")

"""Counts of an index, the limits of the configuration, and the lists of files to leave out."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reid.config import Dataset
from reid.data.detreidx import CAMERAS
from reid.data.frames import IGNORED
from reid.data.scan import Rejected
from reid.data.stored import write_changed
from reid.data.tracklet import PROTOCOL_VIEWS, Tracklet
from reid.errors import UserError

Splits = Mapping[str, Sequence[Tracklet]]


def rejected_share(splits: Splits, rejected: Sequence[Rejected]) -> float:
    """Rejected files (and empty folders) over all files of the dataset; 0 without any."""
    kept = sum(len(tracklet.frames) for tracklets in splits.values() for tracklet in tracklets)
    count = len(unusable(rejected))
    return count / max(1, kept + count)


def unusable(rejected: Iterable[Rejected]) -> list[Rejected]:
    """Those that belong to the dataset: without what the system put there."""
    return [one for one in rejected if one.reason != IGNORED]


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


def is_placed(tracklet: Tracklet, split: str) -> bool:
    """Whether a tracklet was seen from where its protocol's queries, or gallery, must be."""
    views = PROTOCOL_VIEWS.get(split)
    return views is None or tracklet.view == views[tracklet.subset == "gallery"]


def shared_identities(splits: Splits) -> tuple[int, ...]:
    """Identities that are both in training and in a protocol, ascending."""
    train = {tracklet.identity for tracklet in splits["train"]}
    test = {t.identity for split in splits if split != "train" for t in splits[split]}
    return tuple(sorted(train & test))


def summarize(
    splits: Splits, rejected: Sequence[Rejected], cameras: Sequence[str] = CAMERAS
) -> dict[str, Any]:
    """Counts and checks as JSON-able values: what `summary.json` holds."""
    summary: dict[str, Any] = {}
    for split, tracklets in splits.items():
        subsets = dict.fromkeys(t.subset for t in tracklets)
        summary[split] = {
            subset: _counts([t for t in tracklets if t.subset == subset], cameras)
            for subset in subsets
        }
        if split != "train":
            summary[split]["unmatched_queries"] = len(unmatched_queries(tracklets))
            summary[split]["of_another_view"] = sum(not is_placed(t, split) for t in tracklets)
    reasons = Counter(one.reason for one in rejected)
    return {
        "splits": summary,
        "rejected": {"files": len(rejected), "share": rejected_share(splits, rejected)}
        | {"reasons": dict(reasons.most_common())},
        "identities_in_train_and_test": list(shared_identities(splits)),
    }


def _counts(tracklets: Sequence[Tracklet], cameras: Sequence[str]) -> dict[str, Any]:
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
            for camera, name in enumerate(cameras)
        },
        "share_with_metadata": sum(t.has_metadata for t in tracklets) / max(1, len(tracklets)),
        "aerial_outside_capture_points": sum(t.capture_point is None for t in aerial),
    }


def check_limits(
    splits: Splits, rejected: Sequence[Rejected], options: Dataset, *, report: Path
) -> None:
    """Compare an index with the limits of the configuration; `report` is named in errors.

    Raises UserError for too many rejected files, a split without tracklets, identities both in
    training and test, or too many queries without a positive.
    """
    share = rejected_share(splits, rejected)
    if share > options.max_rejected_share:
        bad = unusable(rejected)
        first = bad[0]
        raise UserError(
            f"{len(bad)} files ({share:.3%}) of {options.root} are "
            f"unusable, the first is {first.path}: {first.reason}; all are in {report}: repair "
            f"them or raise dataset.max_rejected_share ({options.max_rejected_share:g})"
        )
    for split, tracklets in splits.items():
        found = {tracklet.subset for tracklet in tracklets}
        for subset in ("train",) if split == "train" else ("query", "gallery"):
            if subset not in found:
                raise UserError(
                    f"{options.root} holds no tracklet for the {subset} part of {split}: expected "
                    f"the {options.layout} layout (docs/DATA.md); is dataset.layout right?"
                )
    shared = shared_identities(splits)
    if shared and not options.allow_shared_identities:
        raise UserError(
            f"{len(shared)} identities are both in training and in a test protocol, the first is "
            f"{shared[0]}: scores would be of people seen in training; move them to one side, or "
            "set dataset.allow_shared_identities if the numbers were given anew"
        )
    for split, tracklets in splits.items():
        queries = [tracklet for tracklet in tracklets if tracklet.subset == "query"]
        unmatched = unmatched_queries(tracklets)
        if len(unmatched) > options.max_unmatched_query_share * len(queries):
            raise UserError(
                f"protocol {split}: {len(unmatched)} of {len(queries)} queries have no positive "
                f"(their identity from another camera) in the gallery, the first is "
                f"{unmatched[0].path}: add the gallery tracklets or raise "
                f"dataset.max_unmatched_query_share ({options.max_unmatched_query_share:g})"
            )


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table, atomically, unless the file holds it already."""
    text = pd.DataFrame(list(rows), columns=list(columns)).to_csv(index=False)
    write_changed(path, text.encode())


DAMAGED_COLUMNS = ("path", "damage")
"""Of the list; others than those of `rejected.csv`, which must not be taken for it."""


def read_damaged(path: Path) -> dict[str, str]:
    """Damage by path of a frame, from a `damaged.csv`. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.reader(opened))
    except OSError as error:
        raise UserError(
            f"dataset.damaged: {path} cannot be read ({error.strerror}): expected the damaged.csv "
            "that `reid check` wrote"
        ) from None
    except (UnicodeDecodeError, csv.Error):
        rows = []
    if rows[:1] != [list(DAMAGED_COLUMNS)] or any(len(row) != len(DAMAGED_COLUMNS) for row in rows):
        raise UserError(
            f"dataset.damaged: {path} is not a damaged.csv of `reid check`: expected the columns "
            f"{', '.join(DAMAGED_COLUMNS)} and nothing else"
        )
    return dict(rows[1:])


def demand_undamaged(tracklets: Iterable[Tracklet], listed: Path) -> None:
    """Raise UserError when frames that a `damaged.csv` names are still in tracklets."""
    names: dict[str, set[str]] = {}
    for damaged in read_damaged(listed):
        folder, _, name = damaged.rpartition("/")
        names.setdefault(folder, set()).add(name)
    still = [
        f"{tracklet.folder}/{name}"
        for tracklet in tracklets
        if tracklet.folder in names
        for name in tracklet.frames
        if name in names[tracklet.folder]
    ]
    if still:
        raise UserError(
            f"{len(still)} frames that {listed} names are in the index, the first is {still[0]}: "
            f"set dataset.damaged to it and run `reid index`, or run `reid check` again"
        )

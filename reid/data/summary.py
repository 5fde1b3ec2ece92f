"""Counts of an index, and the limits of the configuration."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reid.config import Dataset
from reid.data.detreidx import CAMERAS
from reid.data.frames import IGNORED
from reid.data.lists import Rejected
from reid.data.tracklet import PROTOCOL_VIEWS, Tracklet
from reid.errors import UserError

Splits = Mapping[str, Sequence[Tracklet]]


def is_placed(tracklet: Tracklet, split: str) -> bool:
    """Whether a tracklet was seen from where its protocol's queries, or gallery, must be."""
    views = PROTOCOL_VIEWS.get(split)
    return views is None or tracklet.view == views[tracklet.subset == "gallery"]


def _unusable(splits: Splits, rejected: Iterable[Rejected]) -> tuple[list[Rejected], float]:
    """Rejected files (and empty folders) of the dataset, and their share of all its files.

    What the system put there does not count.
    """
    bad = [row for row in rejected if row.reason != IGNORED]
    frames = sum(len(tracklet.frames) for tracklets in splits.values() for tracklet in tracklets)
    return bad, len(bad) / max(1, frames + len(bad))


def _table(splits: Splits) -> pd.DataFrame:
    """One row per tracklet."""
    facts = ("identity", "path", "subset", "view", "camera", "frame_count", "has_metadata")
    rows = [
        (split, is_placed(t, split), t.capture_point is None, *(getattr(t, name) for name in facts))
        for split, tracklets in splits.items()
        for t in tracklets
    ]
    return pd.DataFrame(rows, columns=["split", "placed", "outside", *facts])


def _unmatched(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Queries of a protocol without a positive: same identity from another camera.

    Gallery tracklets of the query's identity and camera are junk in the evaluation.
    """
    rows = table[table.split == split]
    queries, gallery = rows[rows.subset == "query"], rows[rows.subset == "gallery"]
    pairs = queries.merge(gallery[["identity", "camera"]].drop_duplicates(), on="identity")
    return queries[~queries.path.isin(pairs[pairs.camera_x != pairs.camera_y].path)]


def _shared(table: pd.DataFrame) -> list[int]:
    """Identities that are both in training and in a protocol, ascending."""
    training = table.split == "train"
    return sorted(set(table.identity[training].tolist()) & set(table.identity[~training].tolist()))


def summarize(
    splits: Splits, rejected: Sequence[Rejected], cameras: Sequence[str] = CAMERAS
) -> dict[str, Any]:
    """Counts and checks as JSON-able values: what `summary.json` holds."""
    table, summary = _table(splits), dict[str, Any]()
    for split in splits:
        rows = table[table.split == split]
        summary[split] = {
            subset: _counts(part, cameras) for subset, part in rows.groupby("subset", sort=False)
        }
        if split != "train":
            summary[split]["unmatched_queries"] = len(_unmatched(table, split))
            summary[split]["of_another_view"] = int((~rows.placed.astype(bool)).sum())
    reasons = Counter(row.reason for row in rejected)
    return {
        "splits": summary,
        "rejected": {"files": len(rejected), "share": _unusable(splits, rejected)[1]}
        | {"reasons": dict(reasons.most_common())},
        "identities_in_train_and_test": _shared(table),
    }


def _counts(rows: pd.DataFrame, cameras: Sequence[str]) -> dict[str, Any]:
    lengths = rows.frame_count
    return {
        "identities": rows.identity.nunique(),
        "tracklets": len(rows),
        "frames": int(lengths.sum()),
        "frames_per_tracklet": {
            "least": int(lengths.min()),
            "mean": float(lengths.mean()),
            "most": int(lengths.max()),
        },
        "tracklets_by_camera": {
            name: int((rows.camera == camera).sum()) for camera, name in enumerate(cameras)
        },
        "share_with_metadata": float(rows.has_metadata.mean()),
        "aerial_outside_capture_points": int((rows.outside & (rows.view == "aerial")).sum()),
    }


def check_limits(
    splits: Splits, rejected: Sequence[Rejected], options: Dataset, *, report: Path
) -> None:
    """Compare an index with the limits of the configuration; `report` is named in errors.

    Raises UserError for too many rejected files, a split without tracklets, identities both in
    training and test, or too many queries without a positive.
    """
    table, (bad, share) = _table(splits), _unusable(splits, rejected)
    if share > options.max_rejected_share:
        raise UserError(
            f"{len(bad)} files ({share:.3%}) of {options.root} are unusable, the first is "
            f"{bad[0].path}: {bad[0].reason}; all are in {report}: repair them or raise "
            f"dataset.max_rejected_share ({options.max_rejected_share:g})"
        )
    for split in splits:
        for subset in ("train",) if split == "train" else ("query", "gallery"):
            if not ((table.split == split) & (table.subset == subset)).any():
                raise UserError(
                    f"{options.root} holds no tracklet for the {subset} part of {split}: expected "
                    f"the {options.layout} layout (docs/DATA.md); is dataset.layout right?"
                )
    shared = _shared(table)
    if shared and not options.allow_shared_identities:
        raise UserError(
            f"{len(shared)} identities are both in training and in a test protocol, the first is "
            f"{shared[0]}: scores would be of people seen in training; move them to one side, or "
            "set dataset.allow_shared_identities if the numbers were given anew"
        )
    for split in splits:
        queries = int(((table.split == split) & (table.subset == "query")).sum())
        unmatched = _unmatched(table, split)
        if len(unmatched) > options.max_unmatched_query_share * queries:
            raise UserError(
                f"protocol {split}: {len(unmatched)} of {queries} queries have no positive "
                f"(their identity from another camera) in the gallery, the first is "
                f"{unmatched.path.iloc[0]}: add the gallery tracklets or raise "
                f"dataset.max_unmatched_query_share ({options.max_unmatched_query_share:g})"
            )

"""MARS, and G2A-VReID, which is laid out alike.

    bbox_train/PPPP/PPPPCxTttttFfff.jpg       person, camera from 1, tracklet, frame
    bbox_test/PPPP/...
    info/train_name.txt, test_name.txt        all file names, in order
    info/tracks_train_info.mat, tracks_test_info.mat   rows (first, last, person, camera), from 1
    info/query_IDX.mat                        rows of the test tracklets that are queries, from 1

The gallery is all test tracklets that are no query; person -1 is junk and left out; person 0 are
distractors and stay.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from reid.data.layout import Scene, Subset, View
from reid.data.layouts.lists import Listed, plan_lists
from reid.data.names import FrameNames
from reid.data.scan import Look, Plan
from reid.errors import UserError

INFO = (
    *("train_name.txt", "test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat"),
    "query_IDX.mat",
)


def plan_mars(look: Look, views: Sequence[View]) -> Plan:
    """`views` by camera. Raises UserError when a list is missing, damaged or contradicts itself."""
    info = look.root / "info"
    digest = hashlib.sha256()
    for name in INFO:
        if not (info / name).is_file():
            raise UserError(f"{info / name} is missing: is dataset.layout right?")
        digest.update((info / name).read_bytes())
    test = _table(info / "tracks_test_info.mat", "track_test_info")
    queries = _table(info / "query_IDX.mat", "query_IDX").ravel() - 1
    if len(queries) and not (queries.min() >= 0 and queries.max() < len(test)):
        raise UserError(f"{info / 'query_IDX.mat'} names rows that tracks_test_info.mat lacks")
    is_query = np.zeros(len(test), bool)
    is_query[queries] = True
    train = _table(info / "tracks_train_info.mat", "track_train_info")
    subsets: list[Subset] = ["query" if query else "gallery" for query in is_query]
    listed = [
        *_listed(info, "train", train, ["train"] * len(train), views),
        *_listed(info, "test", test, subsets, views),
    ]
    return plan_lists(look, listed, complete=True, stamp=digest.hexdigest())


def _listed(
    info: Path, part: str, rows: Any, subsets: Sequence[Subset], views: Sequence[View]
) -> Iterator[Listed]:
    names = (info / f"{part}_name.txt").read_text(encoding="utf-8").split()
    table = info / f"tracks_{part}_info.mat"
    for number, ((first, last, person, camera), subset) in enumerate(
        zip(rows.tolist(), subsets, strict=True), start=1
    ):
        if person == -1:
            continue
        frames = names[first - 1 : last]
        if not 1 <= first <= last or len(frames) != last - first + 1:
            raise UserError(f"{table}: row {number} names frames {first} to {last} of {len(names)}")
        if not 1 <= camera <= len(views):
            raise UserError(f"{table}: row {number} has camera {camera} of {len(views)}")
        expected = f"{person:04d}C{camera}"
        odd = next((name for name in frames if not name.startswith(expected)), None)
        if odd is not None:
            raise UserError(f"{table}: row {number} is {expected}, but its frame is {odd}")
        folder = f"bbox_{part}/{person:04d}"
        path = f"{folder}/{frames[0].rpartition('.')[0]}"
        scene = Scene(views[camera - 1], camera - 1)
        yield Listed(path, folder, person, subset, scene, FrameNames.of(frames))


def _table(path: Path, name: str) -> Any:
    """An integer matrix of a .mat file."""
    try:
        table = np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError, MatReadError) as error:
        raise UserError(f"{path} is not a MATLAB file with {name} ({error})") from None
    if table.ndim != 2 or (name != "query_IDX" and table.shape[1] != 4):
        raise UserError(f"{path}: {name} has shape {table.shape}, expected rows of 4")
    return table.astype(np.int64)

"""The list of damaged frames that `reid check` writes and `reid index` leaves out."""

import csv
from collections.abc import Iterable
from pathlib import Path

from reid.data.tracklet import Tracklet
from reid.errors import UserError

COLUMNS = ("path", "damage")
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
    if rows[:1] != [list(COLUMNS)] or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(
            f"dataset.damaged: {path} is not a damaged.csv of `reid check`: expected the columns "
            f"{', '.join(COLUMNS)} and nothing else"
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

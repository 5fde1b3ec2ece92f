"""The list of damaged frames that `reid check` writes and `reid index` leaves out."""

import csv
from collections.abc import Iterable
from pathlib import Path

from reid.data.layout import Tracklet
from reid.errors import UserError


def read_damaged(path: Path) -> dict[str, str]:
    """Reasons by path of frames to leave out, from a `damaged.csv`. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            return {row["path"]: f"damaged: {row['reason']}" for row in csv.DictReader(opened)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path} (dataset.damaged) is not a damaged.csv of `reid check` ({error!r})"
        ) from None


def demand_undamaged(tracklets: Iterable[Tracklet], verdict: Path) -> None:
    """Raise UserError when frames that a `damaged.csv` names are still in tracklets."""
    names: dict[str, set[str]] = {}
    for damaged in read_damaged(verdict):
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
            f"{len(still)} frames that {verdict} names are in the index, the first is {still[0]}: "
            f"set dataset.damaged to it and run `reid index`, or run `reid check` again"
        )

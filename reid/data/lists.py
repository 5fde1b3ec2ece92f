"""CSV lists of files: what an index left out, and what `reid check` found damaged."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.files import read_regular, replacing

DAMAGED_COLUMNS = ("path", "damage")
"""Others than those of `rejected.csv`, which must not be taken for it."""


class Rejected(NamedTuple):
    """A file that is not part of the index (or an empty folder), and why."""

    path: str
    """Relative to the dataset root; bytes that are not UTF-8 are written as escapes."""
    reason: str


def write_changed(path: Path, content: bytes) -> None:
    """Write a file atomically unless it has this content."""
    if not path.exists() or path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table, atomically, unless the file holds it already."""
    text = pd.DataFrame(list(rows), columns=list(columns)).to_csv(index=False)
    write_changed(path, text.encode())


def read_csv(path: Path, columns: Sequence[str], expected: str) -> list[tuple[str, ...]]:
    """Rows of a table. Raises UserError when it is missing or has other columns than `expected`."""
    try:
        text = read_regular(path, 1 << 30).decode("utf-8-sig")
        header, *rows = filter(None, map(tuple, csv.reader(StringIO(text, newline=""))))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected {expected}") from None
    except (ValueError, csv.Error):  # empty, or no text
        header, rows = (), []
    if header != tuple(columns) or any(len(row) != len(columns) for row in rows):
        raise UserError(
            f"{path} is not {expected}: expected the columns {', '.join(columns)} and nothing else"
        )
    return rows


def read_rejected(path: Path) -> list[Rejected]:
    """Rows of a `rejected.csv`. Raises UserError as `read_csv`."""
    return [
        Rejected(*row) for row in read_csv(path, Rejected._fields, "a rejected.csv of `reid index`")
    ]


def read_damaged(path: Path) -> dict[str, str]:
    """Damage by path of a frame, from a `damaged.csv`. Raises UserError as `read_csv`."""
    try:
        rows = read_csv(path, DAMAGED_COLUMNS, "a damaged.csv of `reid check`")
    except UserError as error:
        raise UserError(f"dataset.damaged: {error}") from None
    return {frame: damage for frame, damage in rows}  # noqa: C416 - two strings each


def demand_undamaged(tracklets: Iterable[Tracklet], listed: Path) -> None:
    """Raise UserError when frames that a `damaged.csv` names are still in tracklets."""
    damaged = read_damaged(listed)
    folders = {path.rpartition("/")[0] for path in damaged}
    paths = (
        f"{tracklet.folder}/{name}"
        for tracklet in tracklets
        if tracklet.folder in folders
        for name in tracklet.frames
    )
    if indexed := [path for path in paths if path in damaged]:
        raise UserError(
            f"{len(indexed)} frames that {listed} names are in the index, the first is "
            f"{indexed[0]}: set dataset.damaged to it and run `reid index`, or run `reid check` "
            "again"
        )

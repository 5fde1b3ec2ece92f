"""Folders in which a command may delete and overwrite: only those that carry its mark."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reid.errors import UserError
from reid.files import RECORD, read_json, write_json

MARK = ".xfd-reid.json"
"""File that says which kind of output a folder holds, and of what."""

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[^.]+\.tmp")  # as reid.files.replacing names them


def claim(
    folder: Path,
    *,
    kind: str,
    of: str = "",
    ours: Callable[[str], bool],
    dataset_root: Path | None = None,
) -> None:
    """Mark `folder` as output of `kind`, or check that it is already; create it where missing.

    Args:
        kind: what the folder holds, for example "pack".
        of: what it was made from, for example the dataset's name; another one is refused.
        ours: whether a path relative to the folder (with "/") is a file this command writes.
        dataset_root: the user's frames; the folder must lie apart from them.

    Raises:
        UserError: when the folder is, contains or lies in `dataset_root`, has files but no mark,
            has another mark, or holds a file that is not ours. Nothing has been changed then.
    """
    if dataset_root is not None:
        _demand_apart(folder, dataset_root)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name another one for the {kind}")
    mark, expected = folder / MARK, {"kind": kind, "of": of}
    found = {key: value for key, value in read_mark(folder).items() if key in expected}
    if mark.is_file() and found != expected:
        raise UserError(
            f"{folder} belongs to another output ({mark.name} says {found}, expected "
            f"{expected}): name another folder for this {kind}, or remove that one yourself"
        )
    foreign = next(foreign_files(folder, ours), None)
    if foreign is not None:
        raise UserError(
            f"{folder / foreign} was not made by this command, which replaces files in "
            f"{folder}: move it away, or name another folder for the {kind}"
        )
    if not mark.is_file():
        if any(
            not is_temporary(path.name, lambda final: final == MARK) for path in folder.glob("*")
        ):
            raise UserError(
                f"{folder} holds files but no mark of a {kind} ({MARK}): name a new or empty folder"
            )
        write_json(mark, expected)


def read_mark(folder: Path) -> dict[str, Any]:
    """What the mark of `folder` says; nothing without one, or of one that is damaged."""
    mark = folder / MARK
    try:
        return read_json(mark, RECORD) if mark.is_file() else {}
    except UserError:
        return {}


def foreign_files(folder: Path, ours: Callable[[str], bool]) -> Iterator[str]:
    """Paths below `folder`, relative to it, of files that are neither `ours` nor our temporaries.

    Folders are looked into, links are not followed. None where the folder is missing.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_dir() and not path.is_symlink()) or name == MARK or ours(name):
            continue
        if not is_temporary(name, lambda final: final == MARK or ours(final)):
            yield name


def is_temporary(name: str, ours: Callable[[str], bool]) -> bool:
    """Whether `name` is what an interrupted atomic write of one of `ours` left behind."""
    folder, _, last = name.rpartition("/")
    match = _TEMPORARY.fullmatch(last)
    return match is not None and ours(f"{folder}/{match['name']}".lstrip("/"))


def remove_temporaries(folder: Path, ours: Callable[[str], bool]) -> None:
    """Delete what interrupted writes of the mark or of `ours` left in `folder`."""
    for path in folder.glob(".*.tmp"):
        if is_temporary(path.name, lambda final: final == MARK or ours(final)):
            path.unlink()


def _demand_apart(folder: Path, dataset_root: Path) -> None:
    """Raise UserError where one of both folders contains the other."""
    one, other = folder.resolve(), dataset_root.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UserError(
            f"{folder} is, contains or lies in the dataset's root {dataset_root}, whose files "
            "are never changed: choose a folder outside it"
        )

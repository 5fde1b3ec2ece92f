"""Digests of files and folders by their content, remembered while they do not change."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, TypeAdapter

from reid.data.frames import is_ignored
from reid.errors import UserError
from reid.files import read_json, sha256_of_file, write_text

_Known: TypeAlias = dict[
    str, tuple[tuple[int, int, int, int], Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]]
]
_KNOWN = TypeAdapter(_Known)

MISSING = "missing"
"""Digest of what is not there."""


class Contents:
    """Digests, remembered in a file by path, size, times and inode.

    That file is no input of anything: without it all is read again.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: _Known = {}
        self._changed = False
        if memory.exists():
            try:
                self._known = read_json(memory, _KNOWN)
            except UserError:
                print(f"warning: {memory} is damaged: all files are read again", file=sys.stderr)

    def of(self, path: Path, read: Callable[[Path], str]) -> str:
        """The digest that `read(path)` gives, read again only if the file or folder changed."""
        name = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")
        status, key = path.stat(), f"{read.__name__} {name}"
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._known.get(key)
        if known is None or known[0] != now:
            self._known[key] = known = (now, read(path))
            self._changed = True
        return known[1]

    def save(self) -> None:
        """Write what was read anew."""
        if self._changed:
            write_text(self._memory, json.dumps(self._known))
            self._changed = False

    def digest(self, path: Path) -> str:
        """Of a file its SHA-256; of a folder, as the root of a dataset, that of `listing`."""
        if path.is_dir():
            return _of_lines(f"{name} {inside}\n" for name, inside in self.listing(path))
        if not path.is_file():
            return MISSING
        return self.of(path, sha256_of_file)

    def listing(self, root: Path) -> Iterator[tuple[str, str]]:
        """Folders of a dataset down to those of a person, and a digest of the names in each.

        `train/<person>` and `<protocol>/{query,gallery}/<person>`: their entries are tracklets.
        The index is made again when one is added or removed. Files changed inside a tracklet are
        not seen here; training and extraction check each tracklet against the index.
        """
        for part in _children(root):
            for folder in _folders(part, 1 if part.name == "train" else 2):
                yield folder.relative_to(root).as_posix(), self.of(folder, names_in)


def names_in(folder: Path) -> str:
    """Digest of the names in a folder but hidden ones and other systems' leftovers."""
    names = (child.name for child in folder.iterdir() if not is_ignored(child.name))
    return _of_lines(f"{name}\0" for name in names)[:16]


def _of_lines(lines: Iterable[str]) -> str:
    """SHA-256 of texts with names of files, whatever their order and the locale: any bytes."""
    return hashlib.sha256(b"".join(sorted(map(os.fsencode, lines)))).hexdigest()


def _folders(folder: Path, depth: int) -> list[Path]:
    """`folder` and the folders below it down to `depth` levels, sorted."""
    if depth == 0:
        return [folder]
    children = _children(folder)
    return [folder, *(below for child in children for below in _folders(child, depth - 1))]


def _children(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, but hidden ones and other systems' leftovers."""
    names = (child for child in folder.iterdir() if not is_ignored(child.name))
    return sorted(child for child in names if child.is_dir())

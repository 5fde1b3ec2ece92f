"""What is in a folder, without a Python object for every name.

`os.listdir` gives up Python's global lock and takes it again at every name, so that threads that
list folders wait for each other. Here it is given up once for some 600 names.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid.data.names import Run, group, uniform
from reid.errors import UserError

_BUFFER = 1 << 16
_ENTRY = struct.Struct("=16xHB")
"""How a `struct dirent64` begins: inode and offset, its size in bytes, type. The name follows,
ended by a zero."""
_SIZE = 16
"""Where in it the size is."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a folder."""

    entries: bytes
    """`dirent64`s, in no order."""
    modified: int
    """When the folder last changed: ns since the epoch, from before it was read."""

    def names(self) -> list[str]:
        """All names, in no order."""
        return [os.fsdecode(name) for _, _, name in _walk(self.entries)]

    def runs(self) -> list[Run]:
        """What `reid.data.names.group` makes of all names."""
        place, size, name = next(_walk(self.entries), (0, 0, b""))
        if not size:
            return []
        if (len(self.entries) - place) % size == 0:
            table = np.frombuffer(self.entries, np.uint8, offset=place).reshape(-1, size)
            # Rows are entries if each has the size of the first, so that is compared too.
            rows = table[:, _SIZE : _ENTRY.size + len(name) + 1]
            run = uniform(rows, os.fsdecode(name), _ENTRY.size - _SIZE)
            if run is not None:
                return [run]
        return group(self.names())


def list_folder(folder: Path | str) -> Listing:
    """Look into a folder. Raises UserError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Taken before the listing: a change in between then shows as a stale index.
            modified = os.fstat(descriptor).st_mtime_ns
            read = _read_by_name if _getdents is None else _read
            return Listing(read(descriptor), modified)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None


def _walk(entries: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Place, size and name of each entry other than `.` and `..`."""
    place = 0
    while place < len(entries):
        size, _ = _ENTRY.unpack_from(entries, place)
        start = place + _ENTRY.size
        name = entries[start : entries.index(0, start)]
        if name not in (b".", b".."):
            yield place, size, name
        place += size


def _read(descriptor: int) -> bytes:
    assert _getdents is not None
    buffer = ctypes.create_string_buffer(_BUFFER)
    parts = []
    while (size := _getdents(descriptor, buffer, _BUFFER)) > 0:
        parts.append(ctypes.string_at(buffer, size))
    if size < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return b"".join(parts)


def _read_by_name(descriptor: int) -> bytes:
    """The same by `os.listdir`."""
    encoded = (os.fsencode(name) + b"\0" for name in os.listdir(descriptor))
    return b"".join(_ENTRY.pack(_ENTRY.size + len(name), 0) + name for name in encoded)


def _load() -> "ctypes._NamedFuncPointer | None":
    function = getattr(ctypes.CDLL(None, use_errno=True), "getdents64", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        function.restype = ctypes.c_ssize_t
    return function


_getdents = _load()
"""The C library's; None where it has none: before glibc 2.30, and on other systems than Linux."""

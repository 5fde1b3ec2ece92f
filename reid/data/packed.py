"""Frames read out of a pack (reid.data.pack)."""

import os
import re
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid.data.layout import Tracklet
from reid.data.names import FrameNames
from reid.errors import UserError
from reid.files import read_json

RECORD = np.dtype([("end", "<u4"), ("crc", "<u4")])
"""Where a frame ends in its shard (it begins where the one before ends), and its CRC-32."""

PARTS = ("shard", "frames", "parquet")
"""Suffixes of the files of a shard, in the order in which they are written."""

_COLUMNS: dict[str, pa.DataType] = {
    "path": pa.string(),
    "first": pa.int64(),
    "frames": pa.int64(),
    "modified": pa.int64(),
    "names": pa.string(),
    "size": pa.int64(),
    "kept": pa.list_(pa.int32()),
}
SCHEMA = pa.schema(_COLUMNS)


@dataclass(frozen=True)
class Row:
    """One tracklet in a shard."""

    path: str
    first: int
    """Its first record."""
    frames: int
    modified: int
    """Of its folder, when indexed."""
    names: str
    """Hash of its frames' names."""
    size: int
    """Bytes of those that are there."""
    kept: tuple[int, ...] | None = None
    """Positions of the frames that are there; None: all."""

    def matches(self, tracklet: Tracklet) -> bool:
        """Whether this row holds the frames of `tracklet` as indexed.

        Sizes tell frames that were overwritten in place, where the index has them and all frames
        are there.
        """
        same_size = self.kept is not None or tracklet.size in (None, self.size)
        return same_size and self.identity == identity_of(tracklet)

    @property
    def identity(self) -> tuple[str, int, int, str]:
        """What tells one packed tracklet from another."""
        return self.path, self.frames, self.modified, self.names


def identity_of(tracklet: Tracklet) -> tuple[str, int, int, str]:
    """What tells one indexed tracklet from another: path, frames, time of change, names' hash."""
    names = FrameNames.of(tracklet.frames)
    return tracklet.path, len(names), tracklet.modified, names.digest()


def shard_path(folder: Path, number: int, suffix: str) -> Path:
    """A part of shard `number`: suffix `shard`, `frames` or `parquet`."""
    return folder / f"{number:05d}.{suffix}"


def is_part(name: str) -> bool:
    """Whether a file of this name belongs to a pack."""
    return re.fullmatch(rf"pack\.json|[0-9]{{5}}\.({'|'.join(PARTS)})", name) is not None


def read_rows(folder: Path, number: int) -> list[Row]:
    """Tracklets of a shard. Raises UserError when the table is missing or damaged."""
    path = shard_path(folder, number, "parquet")
    try:
        table = pq.read_table(path).cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged ({reason}): delete it and run `reid pack`") from None
    return [
        Row(**{**row, "kept": None if row["kept"] is None else tuple(row["kept"])})
        for row in table.to_pylist()
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `pack.json` says. Raises UserError when the pack is missing or not finished."""
    if not (folder / "pack.json").exists():
        raise UserError(f"{folder} holds no finished pack: run `reid pack`, or unset runtime.pack")
    manifest: dict[str, Any] = read_json(folder / "pack.json", made_by="reid pack")
    return manifest


def damaged(path: Path) -> UserError:
    """The error for a part of a pack that is not what was written."""
    return UserError(
        f"{path} is not what was packed: delete {path.with_suffix('.parquet')} and run `reid pack`"
    )


class Packed:
    """A pack opened for some tracklets: one read of a frame's bytes, checked by their CRC-32.

    The tables of records are memory-mapped, so that loading processes share them.
    """

    def __init__(self, folder: Path, tracklets: Sequence[Tracklet]) -> None:
        """Raises UserError when the pack is unfinished, of another index, or a shard is short."""
        self._folder = folder
        self._shards: list[_Shard] = []
        self._rows: dict[str, tuple[int, Row]] = {}
        wanted = {tracklet.path: tracklet for tracklet in tracklets}
        for number, facts in enumerate(read_manifest(folder)["shards"]):
            self._shards.append(_Shard(folder, number, facts["bytes"]))
            for row in read_rows(folder, number):
                if row.path in wanted and row.matches(wanted[row.path]):
                    self._rows[row.path] = (number, row)
        for path in wanted:
            if path not in self._rows:
                raise UserError(
                    f"{folder} does not hold {path} as indexed: run `reid pack` again after "
                    "`reid index`"
                )

    def expect(self, tracklet: Tracklet, positions: Sequence[int]) -> None:
        """Ask the system to fetch what lies between these frames in one go, if it is not cached."""
        number, row = self._rows[tracklet.path]
        first, last = (self._record(row, edge(positions)) for edge in (min, max))
        self._shards[number].fetch(first, last)

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """Read a frame. Raises UserError when its bytes are not those that were packed."""
        number, row = self._rows[tracklet.path]
        data = self._shards[number].read(self._record(row, position))
        if data is None:
            raise damaged(shard_path(self._folder, number, "shard"))
        return data

    def _record(self, row: Row, position: int) -> int:
        if row.kept is None:
            return row.first + position
        place = bisect_left(row.kept, position)
        if place == len(row.kept) or row.kept[place] != position:
            raise UserError(
                f"frame {position} of {row.path} is not in {self._folder}, which was packed with "
                "--frames-per-tracklet for other clips: run `reid pack` for this configuration"
            )
        return row.first + place

    def name(self, tracklet: Tracklet, position: int) -> str:
        """The frame's path before packing, and the pack."""
        return f"{tracklet.folder}/{tracklet.frames[position]} in {self._folder}"


class _Shard:
    """An open shard; `os.pread` needs no position, so that forked processes can share it."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        path, records = (shard_path(folder, number, suffix) for suffix in ("shard", "frames"))
        try:
            self._file = os.open(path, os.O_RDONLY)
            mapped = np.asarray(np.memmap(records, RECORD, mode="r"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} or {records.name} cannot be opened ({error})") from None
        self._ends, self._crcs = mapped["end"], mapped["crc"]
        if os.fstat(self._file).st_size != size or self._ends[-1] != size:
            raise damaged(path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def fetch(self, first: int, last: int) -> None:
        """Start reading a range of frames into the page cache."""
        start = self._start(first)
        length = int(self._ends[last]) - start
        os.posix_fadvise(self._file, start, length, os.POSIX_FADV_WILLNEED)

    def _start(self, record: int) -> int:
        return int(self._ends[record - 1]) if record else 0

    def read(self, record: int) -> bytes | None:
        """Bytes of a frame, or None when they are not what was packed."""
        start = self._start(record)
        data = os.pread(self._file, int(self._ends[record]) - start, start)
        return data if zlib.crc32(data) == self._crcs[record] else None

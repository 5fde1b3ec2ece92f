"""The format of a pack, and reading frames from it.

pack/00000.tar       frames as they are, tracklet by tracklet: an uncompressed tar
pack/00000.parquet   one row a tracklet: its path, and offset, bytes and CRC-32 of every frame
pack/pack.json       size of each tar, SHA-256 of each table: written last, the pack is complete
"""

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

from reid.data.tracklet import Tracklet, identity_of
from reid.errors import UserError
from reid.files import read_json, sha256_of_file

_COLUMNS: dict[str, pa.DataType] = {
    "path": pa.string(),
    "modified": pa.int64(),
    "names": pa.string(),
    "kept": pa.list_(pa.int32()),
    "offset": pa.list_(pa.int64()),
    "bytes": pa.list_(pa.int32()),
    "crc32": pa.list_(pa.uint32()),
}
SCHEMA = pa.schema(_COLUMNS)
"""`names` is the hash of all frame names; `kept` the positions of those packed, null: all."""


@dataclass(frozen=True)
class Row:
    """One tracklet in a shard."""

    identity: tuple[str, int, str]
    """As `identity_of`."""
    kept: tuple[int, ...] | None
    first: int
    """Position of its first frame in the shard's arrays."""
    size: int
    """Bytes of its frames."""

    def matches(self, tracklet: Tracklet) -> bool:
        """Whether this row holds the frames of `tracklet` as indexed.

        The size tells frames that were overwritten in place, where the index has it and all
        frames are packed.
        """
        same_size = self.kept is not None or tracklet.size in (None, self.size)
        return same_size and self.identity == identity_of(tracklet)


def tar_path(folder: Path, number: int) -> Path:
    """The frames of shard `number`."""
    return folder / f"{number:05d}.tar"


def table_path(folder: Path, number: int) -> Path:
    """The table of shard `number`."""
    return folder / f"{number:05d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file of this name belongs to a pack."""
    return re.fullmatch(r"pack\.json|[0-9]{5}\.(tar|parquet)", name) is not None


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Size of the tar and hash of the table of each shard, from `pack.json`.

    Raises UserError when the pack is missing, not finished or of another version.
    """
    path = folder / "pack.json"
    if not path.exists():
        raise UserError(f"{folder} holds no finished pack: run `reid pack`, or unset runtime.pack")
    manifest = read_json(path, made_by="reid pack")
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    keys = {"tar_bytes", "table_sha256"}
    if not isinstance(shards, list) or not all(
        isinstance(s, dict) and set(s) == keys for s in shards
    ):
        raise UserError(f"{path} is not of this version: remove the pack and run `reid pack`")
    return shards


def not_as_packed(path: Path) -> UserError:
    """The error for a part of a pack that is not what was written."""
    return UserError(
        f"{path} is not what was packed: delete {path.with_suffix('.parquet')} and run `reid pack`"
    )


class Shard:
    """Rows of a shard, and reading its frames by `os.pread`, which processes can share."""

    def __init__(self, folder: Path, number: int) -> None:
        """Raises UserError when the table is missing or damaged."""
        self.path = table_path(folder, number)
        self.tar = tar_path(folder, number)
        try:
            table = pq.read_table(self.path).cast(SCHEMA)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.path} is damaged ({reason}): delete it and run `reid pack`"
            ) from None
        lists: dict[str, Any] = {n: table.column(n).combine_chunks() for n in SCHEMA.names}
        self.offset, self.bytes, self.crc = (
            np.array(lists[name].flatten()) for name in ("offset", "bytes", "crc32")
        )
        ends = np.cumsum([0, *lists["bytes"].value_lengths().to_pylist()])
        light = table.select(["path", "modified", "names", "kept"]).to_pylist()
        self.rows = [
            Row(
                (row["path"], row["modified"], row["names"]),
                None if row["kept"] is None else tuple(row["kept"]),
                int(start),
                int(self.bytes[start:end].sum()),
            )
            for row, start, end in zip(light, ends, ends[1:], strict=False)
        ]
        self._file = -1

    def open(self, facts: dict[str, Any]) -> None:
        """Open the tar. Raises UserError when it or the table is not what `pack.json` says."""
        try:
            self._file = os.open(self.tar, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{self.tar} cannot be opened ({error.strerror})") from None
        if os.fstat(self._file).st_size != facts["tar_bytes"]:
            raise not_as_packed(self.tar)
        if sha256_of_file(self.path) != facts["table_sha256"]:
            raise not_as_packed(self.path)

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def fetch(self, first: int, last: int) -> None:
        """Start reading a range of frames into the page cache."""
        start = int(self.offset[first])
        length = int(self.offset[last]) + int(self.bytes[last]) - start
        os.posix_fadvise(self._file, start, length, os.POSIX_FADV_WILLNEED)

    def read(self, frame: int) -> bytes:
        """Bytes of a frame. Raises UserError when they are not what was packed."""
        data = os.pread(self._file, int(self.bytes[frame]), int(self.offset[frame]))
        if zlib.crc32(data) != self.crc[frame]:
            raise not_as_packed(self.tar)
        return data


def open_shards(folder: Path) -> list[Shard]:
    """All shards of a pack. Raises UserError when it is unfinished or not what was packed."""
    shards = []
    for number, facts in enumerate(read_manifest(folder)):
        shards.append(Shard(folder, number))
        shards[-1].open(facts)
    return shards


class Packed:
    """A pack opened for some tracklets: one read of a frame's bytes, checked by their CRC-32."""

    def __init__(self, folder: Path, tracklets: Sequence[Tracklet]) -> None:
        """Raises UserError when the pack is unfinished, changed or of another index."""
        self._folder = folder
        self._rows: dict[str, tuple[Shard, Row]] = {}
        wanted = {tracklet.path: tracklet for tracklet in tracklets}
        for shard in open_shards(folder):
            for row in shard.rows:
                path = row.identity[0]
                if path in wanted and row.matches(wanted[path]):
                    self._rows[path] = (shard, row)
        for path in wanted:
            if path not in self._rows:
                raise UserError(
                    f"{folder} does not hold {path} as indexed: run `reid pack` again after "
                    "`reid index`"
                )

    def expect(self, tracklet: Tracklet, positions: Sequence[int]) -> None:
        """Ask the system to fetch what lies between these frames in one go, if it is not cached."""
        shard, row = self._rows[tracklet.path]
        shard.fetch(self._frame(row, min(positions)), self._frame(row, max(positions)))

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """Read a frame. Raises UserError when its bytes are not those that were packed."""
        shard, row = self._rows[tracklet.path]
        return shard.read(self._frame(row, position))

    def _frame(self, row: Row, position: int) -> int:
        if row.kept is None:
            return row.first + position
        place = bisect_left(row.kept, position)
        if place == len(row.kept) or row.kept[place] != position:
            raise UserError(
                f"frame {position} of {row.identity[0]} is not in {self._folder}, which was packed "
                "with --frames-per-tracklet for other clips: run `reid pack` for this configuration"
            )
        return row.first + place

    def name(self, tracklet: Tracklet, position: int) -> str:
        """The frame's path before packing, and the pack."""
        return f"{tracklet.folder}/{tracklet.frames[position]} in {self._folder}"

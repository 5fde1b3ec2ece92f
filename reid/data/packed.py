"""The format of a pack, and reading frames from it.

pack/00000.tar       frames as they are, tracklet by tracklet: an uncompressed tar
pack/00000.parquet   one row per tracklet: its path, and offset, size and CRC-32 of every frame
pack/pack.json       size of each tar, SHA-256 of each table: written last, the pack is complete
"""

import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid.data.tracklet import Tracklet, identity_of
from reid.errors import UserError
from reid.files import read_json, sha256_of_file

_COLUMNS: dict[str, pa.DataType] = {
    "path": pa.string(),
    "names": pa.string(),
    "indexed": pa.int64(),
    "kept": pa.list_(pa.int32()),
    "offset": pa.list_(pa.int64()),
    "size": pa.list_(pa.int32()),
    "crc32": pa.list_(pa.uint32()),
}
SCHEMA = pa.schema(_COLUMNS)


class Row(NamedTuple):
    """One tracklet in a shard: a row of its table, F packed frames."""

    path: str
    names: str
    """Hash of all frame names."""
    indexed: float
    """Bytes of all frames when indexed; NaN: not looked at."""
    kept: np.ndarray | None
    """int32 (F,): positions of the packed frames, ascending; None: all."""
    offset: np.ndarray
    """int64 (F,): where each frame begins in the tar."""
    size: np.ndarray
    """int32 (F,): bytes."""
    crc32: np.ndarray
    """uint32 (F,)."""

    def matches(self, tracklet: Tracklet) -> bool:
        """Whether this row holds the frames of `tracklet` as indexed.

        The size tells frames that were replaced, where the index has it.
        """
        path, size, names = identity_of(tracklet)
        packed = int(self.size.sum()) if self.kept is None else self.indexed
        same_size = size is None or math.isnan(packed) or packed == size
        return same_size and self[:2] == (path, names)

    def read(self, tar: FileIO, place: int) -> bytes:
        """Bytes of the packed frame at `place`. Raises UserError when they have changed."""
        data = os.pread(tar.fileno(), int(self.size[place]), int(self.offset[place]))
        if zlib.crc32(data) != self.crc32[place]:
            raise _changed(Path(str(tar.name)))
        return data


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


def read_rows(folder: Path, number: int) -> list[Row]:
    """Rows of a shard. Raises UserError when its table is missing or damaged."""
    path = table_path(folder, number)
    try:
        table = pq.read_table(path, schema=SCHEMA).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged ({reason}): delete it and run `reid pack`") from None
    return [Row(*row) for row in table.itertuples(index=False, name=None)]


def open_shards(folder: Path) -> Iterator[tuple[FileIO, list[Row]]]:
    """Tar and rows of each shard. Raises UserError when the pack is unfinished or has changed."""
    for number, facts in enumerate(read_manifest(folder)):
        path, table = tar_path(folder, number), table_path(folder, number)
        try:
            tar = FileIO(path)
        except OSError as error:
            raise UserError(f"{path} cannot be opened ({error.strerror})") from None
        if os.fstat(tar.fileno()).st_size != facts["tar_bytes"]:
            raise _changed(path)
        rows = read_rows(folder, number)
        if sha256_of_file(table) != facts["table_sha256"]:
            raise _changed(table)
        yield tar, rows


def _changed(path: Path) -> UserError:
    return UserError(
        f"{path} is not what was packed: delete {path.with_suffix('.parquet')} and run `reid pack`"
    )


class Packed:
    """A pack opened for some tracklets: one read of a frame's bytes, checked by their CRC-32."""

    def __init__(self, folder: Path, tracklets: Sequence[Tracklet]) -> None:
        """Raises UserError when the pack is unfinished, changed or of another index."""
        self._folder = folder
        self._rows: dict[str, tuple[FileIO, Row]] = {}
        wanted = {tracklet.path: tracklet for tracklet in tracklets}
        for tar, rows in open_shards(folder):
            for row in rows:
                if row.path in wanted and row.matches(wanted[row.path]):
                    self._rows[row.path] = (tar, row)
        for path in wanted:
            if path not in self._rows:
                raise UserError(
                    f"{folder} does not hold {path} as indexed: run `reid pack` again after "
                    "`reid index`"
                )

    def expect(self, tracklet: Tracklet, positions: Sequence[int]) -> None:
        """Ask the system to fetch what lies between these frames in one go, if it is not cached."""
        tar, row = self._rows[tracklet.path]
        first, last = (self._place(row, edge(positions)) for edge in (min, max))
        start, end = int(row.offset[first]), int(row.offset[last] + row.size[last])
        os.posix_fadvise(tar.fileno(), start, end - start, os.POSIX_FADV_WILLNEED)

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """Read a frame. Raises UserError when its bytes are not those that were packed."""
        tar, row = self._rows[tracklet.path]
        return row.read(tar, self._place(row, position))

    def _place(self, row: Row, position: int) -> int:
        """Where the frame at `position` of the tracklet is among the packed ones."""
        if row.kept is None:
            return position
        place = int(np.searchsorted(row.kept, position))
        if place == len(row.kept) or row.kept[place] != position:
            raise UserError(
                f"frame {position} of {row.path} is not in {self._folder}, which was packed "
                "with --frames-per-tracklet for other clips: run `reid pack` for this configuration"
            )
        return place

    def name(self, tracklet: Tracklet, position: int) -> str:
        """The frame's path before packing, and the pack."""
        return f"{tracklet.folder}/{tracklet.frames[position]} in {self._folder}"

"""The format of a pack, reading frames from it, and its copy on a disk of the node.

pack/00000.tar       frames as they are, tracklet by tracklet: an uncompressed tar
pack/00000.parquet   one row per tracklet (`Row`): which frames, and where they are in the tar
pack/pack.json       size of each tar, SHA-256 of each table: written last, the pack is complete
"""

import fcntl
import filecmp
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from reid.claim import claim, remove_temporaries
from reid.config import Runtime
from reid.data.tracklet import Tracklet, identity_of
from reid.errors import UserError
from reid.files import read_regular, replacing, sha256_of_file
from reid.progress import Progress

UNKNOWN = -1


class Row(NamedTuple):
    """One tracklet in a shard, F packed frames."""

    path: str
    names: str
    """Hash of all frame names."""
    indexed: int
    """Bytes of all frames when indexed, or UNKNOWN."""
    kept: np.ndarray
    """int32 (F,): positions of the packed frames in the tracklet, ascending."""
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
        same_size = size is None or self.indexed in (UNKNOWN, size)
        return same_size and self[:2] == (path, names)

    def read(self, tar: FileIO, place: int) -> bytes:
        """Bytes of the packed frame at `place`. Raises UserError when they have changed."""
        data = os.pread(tar.fileno(), int(self.size[place]), int(self.offset[place]))
        if zlib.crc32(data) != self.crc32[place]:
            raise _changed(Path(str(tar.name)))
        return data


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


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Tar and table of a shard."""
    return folder / f"{number:05d}.tar", folder / f"{number:05d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file of this name belongs to a pack."""
    return re.fullmatch(r"pack\.json|[0-9]{5}\.(tar|parquet)", name) is not None


def _changed(path: Path) -> UserError:
    return UserError(
        f"{path} is not what was packed: delete {path.with_suffix('.parquet')} and run `reid pack`"
    )


class _Shard(TypedDict):
    tar_bytes: int
    table_sha256: str


class _Pack(TypedDict):
    shards: list[_Shard]


_PACK = TypeAdapter(_Pack)


def read_manifest(folder: Path) -> list[tuple[int, str]]:
    """Size of the tar and hash of the table of each shard, from `pack.json`.

    Raises UserError when the pack is missing, not finished or of another version.
    """
    path = folder / "pack.json"
    try:
        content = _PACK.validate_json(read_regular(path, 1 << 26), strict=True)
    except OSError:
        raise UserError(
            f"{folder} holds no finished pack: run `reid pack`, or unset runtime.pack"
        ) from None
    except ValidationError:
        raise UserError(f"{path} is damaged or of another version: run `reid pack` again") from None
    return [(shard["tar_bytes"], shard["table_sha256"]) for shard in content["shards"]]


def read_rows(table: Path) -> list[Row]:
    """Rows of a shard. Raises UserError when its table is missing or damaged."""
    try:
        if not table.is_file():
            raise FileNotFoundError("no such file")
        rows = pq.read_table(table).cast(SCHEMA).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{table} is damaged ({reason}): delete it and run `reid pack`") from None
    return [Row(*row) for row in rows.itertuples(index=False, name=None)]


def open_shards(folder: Path) -> Iterator[tuple[FileIO, list[Row]]]:
    """Tar and rows of each shard. Raises UserError when the pack is unfinished or has changed."""
    for number, (size, digest) in enumerate(read_manifest(folder)):
        tar, table = shard_paths(folder, number)
        if not tar.is_file() or tar.stat().st_size != size:
            raise _changed(tar)
        rows = read_rows(table)
        if sha256_of_file(table) != digest:
            raise _changed(table)
        yield FileIO(tar), rows


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


def pack_for(runtime: Runtime) -> Path | None:
    """The pack that a job reads: `runtime.pack`, staged if `runtime.stage_to` says so, or None.

    Raises UserError as `stage` does.
    """
    if runtime.pack is None or runtime.stage_to is None:
        return runtime.pack
    folder = os.path.expandvars(runtime.stage_to)
    if "$" in folder:
        raise UserError(f"runtime.stage_to: {folder!r} names a variable that is not set here")
    return stage(runtime.pack, Path(folder), quiet=False)


def stage(pack: Path, node: Path, *, quiet: bool = True) -> Path:
    """Copy a pack into a folder below `node`; returns that folder.

    Each user has a copy of their own. Jobs take turns: the first copies, the others copy only
    files that are missing or differ from the pack, so an interrupted copy is finished. Raises
    UserError when there is no room.
    """
    read_manifest(pack)
    digest = sha256_of_file(pack / "pack.json")[:16]
    folder = node / f"xfd-reid-pack-{os.getuid()}-{digest}"
    if not node.exists():
        node.mkdir(parents=True, exist_ok=True)
        node.chmod(0o1777)  # other users stage there too, as in /tmp
    with (node / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when its holder dies
        claim(folder, kind="copy of a pack", of=digest, ours=is_part)
        remove_temporaries(folder, is_part)
        outdated = {
            path: folder / path.name
            for path in sorted(pack.iterdir())
            if is_part(path.name) and not _is_copy(folder / path.name, path)
        }
        size, free = sum(path.stat().st_size for path in outdated), shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                f"{folder}: {size / 1e9:.1f} GB of {pack} to copy, {free / 1e9:.1f} GB free: "
                "change or unset runtime.stage_to"
            )
        progress = Progress(f"copy of {pack}", max(1, size >> 20), "MiB")
        for source, target in outdated.items():
            try:
                with replacing(target) as temporary:
                    shutil.copy2(source, temporary)
            except OSError as error:
                raise UserError(
                    f"{source} cannot be copied to {target}: {error.strerror}"
                ) from None
            if not quiet:
                progress.advance(source.stat().st_size >> 20)
    return folder


def _is_copy(target: Path, source: Path) -> bool:
    """Whether both have the same size and modification time, or else the same content."""
    return target.is_file() and filecmp.cmp(target, source)

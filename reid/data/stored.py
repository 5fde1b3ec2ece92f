"""Tracklets of one split as a Parquet file, one row per tracklet."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reid.config import Dataset
from reid.data.detreidx import CAMERAS
from reid.data.tracklet import FrameNames, Tracklet
from reid.errors import UserError
from reid.files import replacing
from reid.paths import SPLITS, Results

_COLUMNS: dict[str, pa.DataType] = {
    "identity": pa.int64(),
    "name": pa.string(),
    "path": pa.string(),
    "subset": pa.string(),
    "view": pa.string(),
    "camera": pa.int8(),
    "session": pa.int8(),
    "altitude": pa.float64(),
    "distance": pa.float64(),
    "angle": pa.float64(),
    "prefix": pa.string(),
    "frames": pa.list_(pa.string()),
    "suffix": pa.string(),
    "modified": pa.int64(),
    "in_folder": pa.string(),
    "size": pa.int64(),
    "capture_point": pa.int8(),
    "frame_count": pa.int32(),
}
SCHEMA = pa.schema(_COLUMNS)
_FIELDS = tuple(field.name for field in fields(Tracklet))
"""What a tracklet is made of: the name of a frame is prefix, its entry of `frames`, suffix. Other
columns are for people."""
_CAMERAS = b"cameras"


def write_split(
    path: Path, tracklets: Sequence[Tracklet], *, cameras: Sequence[str] = CAMERAS
) -> None:
    """Write tracklets to a Parquet file, atomically; `cameras` are those of the whole dataset."""
    names = [FrameNames.of(tracklet.frames) for tracklet in tracklets]
    columns: dict[str, list[Any]] = {
        column: [getattr(tracklet, column, None) for tracklet in tracklets]
        for column in SCHEMA.names
    }
    columns["prefix"] = [name.prefix for name in names]
    columns["frames"] = [name.middles for name in names]
    columns["suffix"] = [name.suffix for name in names]
    schema = SCHEMA.with_metadata({_CAMERAS: json.dumps(list(cameras)).encode()})
    with replacing(path) as temporary:
        pq.write_table(
            pa.table(columns, schema=schema),
            temporary,
            use_dictionary=False,
            compression="zstd",
            column_encoding={"frames.list.element": "DELTA_BYTE_ARRAY"},  # next to no space
        )


def read_cameras(path: Path) -> tuple[str, ...]:
    """What camera 0, 1, ... of the dataset is that a split's index belongs to.

    Raises UserError as `read_split`.
    """
    with _naming(path):
        facts = pq.read_schema(path).metadata or {}
    if _CAMERAS not in facts:
        raise UserError(f"{path} has other columns than an index: run `reid index` again")
    return tuple(json.loads(facts[_CAMERAS]))


def count_cameras(path: Path) -> int:
    """How many those are: what the network's camera prompts are for."""
    return len(read_cameras(path))


def read_split(path: Path) -> tuple[Tracklet, ...]:
    """Tracklets of one split's Parquet file. Raises UserError when missing or damaged."""
    tracklets: list[Tracklet] = []
    for batch in _read(path, (*_FIELDS, "prefix", "suffix")).to_batches():
        columns = {name: batch.column(name) for name in batch.schema.names if name != "frames"}
        frames = batch.column("frames")
        rows = pa.table(columns).to_pylist()
        for number, row in enumerate(rows):
            names = FrameNames(row.pop("prefix"), frames[number].values, row.pop("suffix"))
            tracklets.append(Tracklet(**row, frames=names))
    return tuple(tracklets)


def read_all(options: Dataset) -> list[Tracklet]:
    """Tracklets of all splits of a dataset, each once: protocols may share one.

    Raises UserError as `read_split` and `check_fresh`.
    """
    tracklets: dict[str, Tracklet] = {}
    for split in SPLITS:
        if split == "train" or split in options.protocols:
            path = Results.of(options.name).index(split)
            check_fresh(options.root, path)
            tracklets |= {tracklet.path: tracklet for tracklet in read_split(path)}
    return list(tracklets.values())


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of an index. Raises UserError as `read_split`."""
    with _naming(path), pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(SCHEMA):
            raise UserError(f"{path} has other columns than an index: run `reid index` again")
        return file.read(columns=list(columns), use_threads=False)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid index`") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not an index ({reason}): run `reid index` again") from None


def check_fresh(root: Path, path: Path) -> None:
    """Compare a split's index with the disk: every tracklet folder there and unmodified.

    Raises UserError without an index, and naming the first folder that is gone or was changed after
    indexing.
    """
    if path.exists():
        demand_folder(root, f"{path} was made from it: correct dataset.root or bring it back")
    else:
        demand_folder(root, "put the dataset there or correct dataset.root, then run `reid index`")
    rows = _read(path, ("path", "in_folder", "modified")).to_pylist()
    times = {row["in_folder"] or row["path"]: row["modified"] for row in rows}
    for place, indexed in times.items():
        folder = root / place
        try:
            modified = folder.stat().st_mtime_ns
        except OSError:
            raise UserError(
                f"{folder} is gone, but {path} lists it: correct dataset.root or run "
                "`reid index` again"
            ) from None
        if modified != indexed:
            raise UserError(f"{folder} changed after {path} was made: run `reid index` again")


def demand_folder(folder: Path, hint: str) -> None:
    """Raise UserError, ending in `hint`, unless `folder` is a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {hint}")

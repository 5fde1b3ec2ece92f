"""Tracklets of one split as a Parquet file: a row each, frame names by what differs."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reid.data.layout import CAMERAS, Tracklet
from reid.data.names import FrameNames, Run
from reid.errors import UserError
from reid.files import replacing

_RUN = pa.struct(
    [
        ("head", pa.string()),
        ("width", pa.int8()),
        ("suffix", pa.string()),
        ("numbers", pa.list_(pa.int32())),
    ]
)
"""File names `head_NUMBERsuffix`, the number padded to `width` digits (reid.data.names)."""

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
    "frames": pa.list_(_RUN),
    "modified": pa.int64(),
    "in_folder": pa.string(),
    "size": pa.int64(),
    "capture_point": pa.int8(),
    "frame_count": pa.int32(),
}
SCHEMA = pa.schema(_COLUMNS)
_FIELDS = tuple(field.name for field in fields(Tracklet))
"""What a tracklet is made of. Other columns are for people: it knows them from these."""
_NUMBERS = "frames.list.element.numbers.list.element"
_CAMERAS = b"cameras"


def write_split(
    path: Path, tracklets: Sequence[Tracklet], *, cameras: Sequence[str] = CAMERAS
) -> None:
    """Write tracklets to a Parquet file, atomically; `cameras` are those of the whole dataset."""
    columns = {name: [getattr(t, name) for t in tracklets] for name in SCHEMA.names}
    columns["frames"] = [
        [asdict(run) for run in FrameNames.of(tracklet.frames).runs] for tracklet in tracklets
    ]
    with replacing(path) as temporary:
        schema = SCHEMA.with_metadata({_CAMERAS: json.dumps(list(cameras)).encode()})
        pq.write_table(
            pa.table(columns, schema=schema),
            temporary,
            use_dictionary=False,
            column_encoding={_NUMBERS: "DELTA_BINARY_PACKED"},  # consecutive ones take no space
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
    table = _read(path, _FIELDS)
    columns: list[Sequence[Any]] = [
        _names(column.combine_chunks()) if name == "frames" else column.to_pylist()
        for name, column in zip(_FIELDS, map(table.column, _FIELDS), strict=True)
    ]
    return tuple(map(Tracklet, *columns))


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of an index. Raises UserError as `read_split`."""
    with _naming(path):
        # One read of the file instead of one a column. Threads do not help: they share columns,
        # and nearly all there is is in the one of frames' numbers.
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
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


def _names(column: Any) -> list[FrameNames]:
    """Frame names by tracklet, from a column of lists of `_RUN`; all share one array of numbers."""
    runs = column.values
    numbers = runs.field("numbers")
    flat = numbers.values.to_numpy()
    parts = [flat[start:end] for start, end in pairwise(numbers.offsets.to_pylist())]
    widths = runs.field("width").to_pylist()
    # Few different strings, many tracklets: keep each once.
    heads, suffixes = (map(sys.intern, runs.field(f).to_pylist()) for f in ("head", "suffix"))
    made = list(map(Run, heads, widths, suffixes, parts))
    return [FrameNames(made[start:end]) for start, end in pairwise(column.offsets.to_pylist())]

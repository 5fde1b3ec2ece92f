"""The files of an index: tracklets of a split as Parquet, and the times of their folders.

index/<split>.parquet   one row per tracklet; the same bytes for equal frames, names, sizes and
                        metadata, wherever and whenever they were indexed
index/times.parquet     modification time of each folder: what makes `check_fresh` fast, no more
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from reid.config import Config
from reid.data.detreidx import CAMERAS
from reid.data.frames import EMPTY, SPECIAL, UNREADABLE, list_folder
from reid.data.lists import read_rejected, write_changed
from reid.data.tracklet import FrameNames, Tracklet
from reid.errors import UserError
from reid.files import demand_regular, sha256_of_file
from reid.paths import SPLITS, Results

_COLUMNS: dict[pa.DataType, tuple[str, ...]] = {
    pa.string(): ("path", "name", "subset", "view", "in_folder", "prefix", "suffix"),
    pa.list_(pa.string()): ("frames",),
    pa.int64(): ("identity", "size"),
    pa.int32(): ("frame_count",),
    pa.int8(): ("camera", "session", "capture_point"),
    pa.float64(): ("altitude", "distance", "angle"),
}
SCHEMA = pa.schema([(name, kind) for kind, names in _COLUMNS.items() for name in names])
_FACTS = [*(field.name for field in fields(Tracklet)), "prefix", "suffix"]
"""What a tracklet is made of: the name of a frame is prefix, its entry of `frames`, suffix. Other
columns are for people."""
_TIMES: dict[str, pa.DataType] = {"folder": pa.string(), "modified": pa.int64()}
_CAMERAS, _DIGESTS = TypeAdapter(tuple[str, ...]), TypeAdapter(dict[str, str])
_AGAIN = "run `reid index` again"


def write_split(
    path: Path, tracklets: Sequence[Tracklet], *, cameras: Sequence[str] = CAMERAS
) -> None:
    """Write tracklets to a Parquet file, atomically, unless it holds them already.

    `cameras` are those of the whole dataset.
    """
    names = [FrameNames.of(tracklet.frames) for tracklet in tracklets]
    columns: dict[str, list[Any]] = {
        column: [getattr(tracklet, column, None) for tracklet in tracklets]
        for column in SCHEMA.names
    }
    columns["prefix"] = [name.prefix for name in names]
    columns["frames"] = [name.middles for name in names]
    columns["suffix"] = [name.suffix for name in names]
    buffer = BytesIO()
    pq.write_table(
        pa.table(columns, SCHEMA.with_metadata({"cameras": json.dumps(list(cameras))})),
        buffer,
        use_dictionary=False,
        compression="zstd",
        column_encoding={"frames.list.element": "DELTA_BYTE_ARRAY"},  # next to no space
        write_page_checksum=True,
    )
    write_changed(path, buffer.getvalue())


def read_cameras(path: Path) -> tuple[str, ...]:
    """What camera 0, 1, ... of the dataset is that a split's index belongs to.

    Raises UserError as `read_split`.
    """
    with _naming(path):
        demand_regular(path)
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        if b"cameras" not in metadata:
            raise UserError(f"{path} is not an index of this version: {_AGAIN}")
        return _CAMERAS.validate_json(metadata[b"cameras"])


def count_cameras(path: Path) -> int:
    """How many those are: what the network's camera prompts are for."""
    return len(read_cameras(path))


def read_split(path: Path) -> tuple[Tracklet, ...]:
    """Tracklets of one split's Parquet file. Raises UserError when missing or damaged."""
    with _naming(path):
        demand_regular(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise UserError(f"{path} has other columns than an index of this version: {_AGAIN}")
            table = file.read(columns=_FACTS, use_threads=False)
    tracklets: list[Tracklet] = []
    for batch in table.to_batches():
        frames = batch.column("frames")
        for number, row in enumerate(batch.drop_columns(["frames"]).to_pylist()):
            names = FrameNames(row.pop("prefix"), frames[number].values, row.pop("suffix"))
            tracklets.append(Tracklet(**row, frames=names))
    return tuple(tracklets)


def read_all(config: Config) -> list[Tracklet]:
    """Tracklets of all splits of a dataset, each once: protocols may share one.

    Raises UserError as `read_split` and `check_fresh`.
    """
    tracklets: dict[str, Tracklet] = {}
    for split in SPLITS:
        if split == "train" or split in config.dataset.protocols:
            path = Results.of(config).index(split)
            check_fresh(config.dataset.root, path)
            tracklets |= {tracklet.path: tracklet for tracklet in read_split(path)}
    return list(tracklets.values())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid index`") from None
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: of text and JSON
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not an index ({reason}): {_AGAIN}") from None


# -- is the index that of the dataset as it is now -------------------------------------------------


def write_times(folder: Path, times: Mapping[str, int], splits: Iterable[str]) -> None:
    """Write the modification times (ns) of the folders of `splits`, by path under the root."""
    digests = {split: sha256_of_file(folder / f"{split}.parquet") for split in splits}
    columns: dict[str, list[Any]] = {"folder": [*times], "modified": [*times.values()]}
    table = pa.table(columns, pa.schema(_TIMES, {"digests": json.dumps(digests)}))
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_changed(folder / "times.parquet", buffer.getvalue())


def _read_times(path: Path) -> dict[str, int]:
    """Those of the index that the split `path` belongs to; none where they are of another one."""
    try:
        demand_regular(path.with_name("times.parquet"))
        table = pq.read_table(path.with_name("times.parquet"), page_checksum_verification=True)
        digests = _DIGESTS.validate_json((table.schema.metadata or {}).get(b"digests", b"{}"))
    except (pa.ArrowException, OSError, ValueError):  # ValueError: not JSON, or not of names
        return {}
    if not table.schema.equals(pa.schema(_TIMES)) or digests.get(path.stem) != sha256_of_file(path):
        return {}
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def check_fresh(root: Path, path: Path) -> None:
    """Compare a split's index with the disk: the frames of every tracklet are there as indexed.

    A folder whose time is the one of `times.parquet` is not listed. Of another one the names and
    the total size of its frames are compared. Raises UserError without an index, and naming a
    folder that is gone or holds other frames.
    """
    if path.exists():
        demand_folder(root, f"{path} was made from it: correct dataset.root or bring it back")
    else:
        demand_folder(root, "put the dataset there or correct dataset.root, then run `reid index`")
    folders: dict[str, list[Tracklet]] = {}
    for tracklet in read_split(path):
        folders.setdefault(tracklet.folder, []).append(tracklet)
    times = _read_times(path)
    touched = [place for place in folders if _modified(root / place) != times.get(place)]
    left_out: dict[str, set[str]] = {}
    listed = path.with_name("rejected.csv")
    for name, reason in read_rejected(listed) if touched and listed.exists() else ():
        if not reason.startswith((EMPTY, SPECIAL, UNREADABLE)):  # those may be repaired
            left_out.setdefault(name.rpartition("/")[0], set()).add(name.rpartition("/")[2])
    with ThreadPoolExecutor(8) as pool:
        differences = pool.map(
            lambda place: _difference(root / place, folders[place], left_out.get(place, set())),
            touched,
        )
        for place, difference in zip(touched, differences, strict=True):
            if difference:
                raise UserError(
                    f"{root / place} changed after {path} was made ({difference}): {_AGAIN}"
                )


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:  # `_difference` says which folder is gone
        return -1


def _difference(folder: Path, tracklets: Sequence[Tracklet], left_out: set[str]) -> str:
    """How the frames in a folder differ from those of its indexed tracklets; empty: not at all.

    Frames in `left_out`, and those that no list names, are none of the index's.
    """
    if not folder.is_dir():
        return "it is gone"
    sizes = list_folder(folder, check_sizes=tracklets[0].size is not None).frames
    indexed = {name for tracklet in tracklets for name in tracklet.frames}
    more = 0 if tracklets[0].in_folder else len(sizes.keys() - indexed - left_out)
    fewer = len(indexed - sizes.keys())
    counts = ((more, "more"), (fewer, "fewer"))
    words = [f"{count} frame{'s' * (count > 1)} {word}" for count, word in counts if count]
    if not fewer and any(
        tracklet.size not in (None, sum(sizes[name] or 0 for name in tracklet.frames))
        for tracklet in tracklets
    ):
        words.append("frames of other sizes")
    return ", ".join(words)


def demand_folder(folder: Path, hint: str) -> None:
    """Raise UserError, ending in `hint`, unless `folder` is a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: {hint}")

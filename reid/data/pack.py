"""Frames as they are, concatenated tracklet by tracklet into a few large files.

    pack/00000.shard     JPEG bytes of whole tracklets, nothing between them
    pack/00000.frames    one record a frame: where it ends in the shard, and its CRC-32
    pack/00000.parquet   one row a tracklet: path, first record, frames; written last
    pack/pack.json       sizes and hashes of all shards: the pack is complete

Why: a crop is two kilobytes; one file each starves a GPU on a parallel file system. A shard counts
once its .parquet is there, so a run that was killed goes on after the last whole shard, and the
result is the same bytes as without the kill.
"""

import hashlib
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid.artifacts import SPLITS, Results
from reid.claim import claim, remove_temporaries
from reid.config import Config
from reid.data.damaged import demand_undamaged
from reid.data.frames import Files
from reid.data.layout import Tracklet
from reid.data.packed import (
    RECORD,
    SCHEMA,
    Row,
    damaged,
    identity_of,
    is_part,
    read_manifest,
    read_rows,
    shard_path,
)
from reid.data.selection import Selection, everything, sampled
from reid.data.stored import check_fresh, read_split
from reid.errors import UserError
from reid.files import replacing, sha256_of_file, write_json
from reid.progress import Progress

LARGEST_SHARD = 1 << 30

_Content: TypeAlias = tuple[Tracklet, tuple[int, ...] | None, list[bytes]]
"""A tracklet, which of its frames are kept, and their bytes."""


def pack(
    tracklets: Sequence[Tracklet],
    root: Path,
    folder: Path,
    *,
    dataset: str = "",
    keep: Selection = everything,
    largest_shard: int = LARGEST_SHARD,
    workers: int = 8,
    quiet: bool = True,
) -> None:
    """Pack tracklets into `folder`, going on after the last whole shard of an earlier run.

    `folder` must be new, empty or a pack of the same `dataset`: files in it are replaced.

    A shard is closed by the tracklet that brings it to `largest_shard` bytes; `workers` threads
    read ahead; `keep` chooses frames. Raises UserError as `reid.claim.claim` does, when a frame is
    missing or was replaced after indexing, or the disk is full: whole shards stay.
    """
    claim(folder, kind="pack", of=dataset, ours=is_part, dataset_root=root)
    (folder / "pack.json").unlink(missing_ok=True)
    remove_temporaries(folder, is_part)
    done, number = _whole_shards(tracklets, folder, keep)
    _remove_from(folder, number)
    progress = Progress("pack", len(tracklets), "tracklets", done=done)
    with ThreadPoolExecutor(workers) as pool:
        remaining = _read_ahead(pool, Files(root), tracklets[done:], keep, 2 * workers)
        while done < len(tracklets):
            try:
                rows = _write_shard(remaining, folder, number, largest_shard)
            except OSError as error:
                raise UserError(
                    f"{shard_path(folder, number, 'shard')} cannot be written "
                    f"({error.strerror}): make room and run `reid pack` again, the "
                    f"{number} shards before it stay"
                ) from None
            done, number = done + len(rows), number + 1
            if not quiet:
                progress.advance(len(rows), f"{number} shards")
    _finish(folder, number)


def run(config: Config, *, frames_per_tracklet: int | None = None) -> None:
    """`reid pack`: all indexed tracklets into `runtime.pack`.

    With `frames_per_tracklet` only some frames of queries and gallery (reid.data.selection).
    Raises UserError as `pack` does, and when `reid check` found frames damaged that are still in
    the index.
    """
    options, folder, results = config.dataset, _folder(config), Results.of(config.dataset.name)
    keep: Selection = everything
    if frames_per_tracklet is not None:
        keep = sampled(frames_per_tracklet, [each.clip for each in config.trainings.values()])
    tracklets: dict[str, Tracklet] = {}  # by path: protocols may share one
    for split in SPLITS:
        if split == "train" or split in options.protocols:
            index = results.index(split)
            check_fresh(options.root, index)
            tracklets |= {tracklet.path: tracklet for tracklet in read_split(index)}
    verdict = options.damaged or results.root / "check" / "damaged.csv"
    if verdict.exists():
        demand_undamaged(tracklets.values(), verdict)
    everyone = list(tracklets.values())
    pack(everyone, options.root, folder, dataset=options.name, keep=keep, quiet=False)


def run_verify(config: Config) -> None:
    """`reid pack --verify`. Raises UserError as `verify` does."""
    folder = _folder(config)
    verify(folder)
    print(f"{folder}: every shard is as packed")


def _folder(config: Config) -> Path:
    if config.runtime.pack in (None, Path()):
        raise UserError("runtime.pack is not set: name the folder to pack into")
    assert config.runtime.pack is not None
    return config.runtime.pack


def verify(folder: Path) -> None:
    """Compare every shard with its hash. Raises UserError naming the first file that differs."""
    for number, facts in enumerate(read_manifest(folder)["shards"]):
        for suffix in ("shard", "frames"):
            path = shard_path(folder, number, suffix)
            if not path.is_file() or sha256_of_file(path) != facts[suffix]:
                raise damaged(path)


def _whole_shards(tracklets: Sequence[Tracklet], folder: Path, keep: Selection) -> tuple[int, int]:
    """How many tracklets, in how many shards, an earlier run has packed as they are today."""
    done = number = 0
    while shard_path(folder, number, "parquet").exists():
        rows = read_rows(folder, number)
        own = tracklets[done : done + len(rows)]
        if len(own) < len(rows) or not all(map(Row.matches, rows, own)):
            break
        if [row.kept for row in rows] != [keep(tracklet) for tracklet in own]:
            break
        done, number = done + len(rows), number + 1
    return done, number


def _remove_from(folder: Path, number: int) -> None:
    """Delete shards from `number` on: of an earlier index, or beyond the end."""
    for path in sorted(folder.glob("[0-9]*.*"), reverse=True):
        if is_part(path.name) and int(path.stem) >= number:
            path.unlink()


def _read_ahead(
    pool: ThreadPoolExecutor,
    files: Files,
    tracklets: Sequence[Tracklet],
    keep: Selection,
    ahead: int,
) -> Iterator[_Content]:
    """Tracklets in order with the bytes of their frames, a bounded number of them in memory."""

    def read(tracklet: Tracklet) -> _Content:
        kept = keep(tracklet)
        positions = range(len(tracklet.frames)) if kept is None else kept
        frames = [files.read(tracklet, position) for position in positions]
        if kept is None and tracklet.size not in (None, sum(map(len, frames))):
            raise UserError(
                f"{files.root / tracklet.folder}: frames of {tracklet.path} have other sizes than "
                "when indexed, so one was replaced: run `reid index` again"
            )
        return tracklet, kept, frames

    todo = iter(tracklets)
    waiting: deque[Future[_Content]] = deque(pool.submit(read, t) for t in islice(todo, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(read, tracklet) for tracklet in islice(todo, 1))


def _write_shard(
    remaining: Iterable[_Content], folder: Path, number: int, largest: int
) -> list[Row]:
    rows: list[Row] = []
    records: list[tuple[int, int]] = []
    end, digest = 0, hashlib.sha256()
    with replacing(shard_path(folder, number, "shard")) as temporary, temporary.open("wb") as out:
        for tracklet, kept, frames in remaining:
            path, count, modified, names = identity_of(tracklet)
            size = sum(map(len, frames))
            rows.append(Row(path, len(records), count, modified, names, size, kept))
            for data in frames:
                end += len(data)
                records.append((end, zlib.crc32(data)))
                digest.update(data)
                out.write(data)
            if end >= largest:
                break
    index = np.array(records, dtype=RECORD).tobytes()
    with replacing(shard_path(folder, number, "frames")) as temporary:
        temporary.write_bytes(index)
    facts = {"shard": digest.hexdigest(), "frames": hashlib.sha256(index).hexdigest()}
    with replacing(shard_path(folder, number, "parquet")) as temporary:
        columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
        pq.write_table(pa.table(columns, schema=SCHEMA.with_metadata(facts)), temporary)
    return rows


def _finish(folder: Path, shards: int) -> None:
    """Write `pack.json` from what each shard says of itself."""
    facts = []
    for number in range(shards):
        hashes = pq.read_schema(shard_path(folder, number, "parquet")).metadata
        size = shard_path(folder, number, "shard").stat().st_size
        facts.append(
            {"bytes": size, **{k: hashes[k.encode()].decode() for k in ("shard", "frames")}}
        )
    write_json(folder / "pack.json", {"shards": facts})

"""`reid pack`: copy frames into a few large tar files (reid.data.packed has the format).

Why: a crop is two kilobytes; one file each starves a GPU on a parallel file system. A shard counts
once its .parquet is there, so a run that was killed continues after the last whole shard, and the
result is the same bytes as without the kill.
"""

import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reid.claim import claim, remove_temporaries
from reid.config import Clip, Config
from reid.data.frames import Files
from reid.data.lists import demand_undamaged
from reid.data.packed import SCHEMA, UNKNOWN, Row, is_part, open_shards, read_rows, shard_paths
from reid.data.sampler import sample_frames
from reid.data.stored import read_all
from reid.data.tracklet import Tracklet, identity_of
from reid.errors import UserError
from reid.files import replacing, sha256_of_file, write_json
from reid.paths import Results
from reid.progress import Progress

LARGEST_SHARD = 1 << 30
MOST_FRAMES = 4096
"""Of a clip, as in the configuration."""

Selection: TypeAlias = Callable[[Tracklet], Sequence[int]]
"""Positions of the frames to keep, ascending."""
_Content: TypeAlias = tuple[Tracklet, Sequence[int], list[bytes]]
"""A tracklet, which of its frames are kept, and their bytes."""


def whole(tracklet: Tracklet) -> Sequence[int]:
    """Keep all frames."""
    return range(len(tracklet.frames))


def sampled(frames: int, clips: Collection[Clip]) -> Selection:
    """Keep of queries and gallery what test sampling takes: clips of `frames` frames, and `clips`.

    Training tracklets stay whole: training may draw any of their frames. Raises UserError when a
    clip takes more than `frames`.
    """
    if not 1 <= frames <= MOST_FRAMES:
        raise UserError(f"--frames-per-tracklet is {frames}: expected 1 to {MOST_FRAMES}")
    for clip in clips:
        if clip.frames > frames:
            raise UserError(
                f"--frames-per-tracklet is {frames}, but a training takes clip.frames "
                f"{clip.frames} of each tracklet: give at least that"
            )
    ways = {(count, clip.test_sampling) for clip in clips for count in (clip.frames, frames)}

    def keep(tracklet: Tracklet) -> Sequence[int]:
        if tracklet.subset == "train":
            return whole(tracklet)
        count = len(tracklet.frames)
        taken = [sample_frames(count, wanted, test=sampling) for wanted, sampling in sorted(ways)]
        kept: list[int] = np.unique(np.concatenate(taken)).tolist()
        return kept

    return keep


def pack(
    tracklets: Sequence[Tracklet],
    root: Path,
    folder: Path,
    *,
    dataset: str = "",
    keep: Selection = whole,
    largest_shard: int = LARGEST_SHARD,
    workers: int = 8,
    quiet: bool = True,
) -> None:
    """Pack tracklets into `folder`, continuing after the last whole shard of an earlier run.

    `folder` must be new, empty or a pack of the same `dataset`: files in it are replaced. A shard
    is closed by the tracklet that brings it to `largest_shard` bytes; `workers` threads read
    ahead; `keep` chooses frames. Raises UserError as `reid.claim.claim` does, when a frame is
    missing or was replaced after indexing, or the disk is full: whole shards stay.
    """
    claim(folder, kind="pack", of=dataset, ours=is_part, dataset_root=root)
    (folder / "pack.json").unlink(missing_ok=True)
    remove_temporaries(folder, is_part)
    done, number = _whole_shards(tracklets, folder, keep)
    for path in sorted(folder.glob("[0-9]*.*"), reverse=True):  # of an earlier index
        if is_part(path.name) and int(path.stem) >= number:
            path.unlink()
    progress = Progress("pack", len(tracklets), "tracklets", done=done)
    with ThreadPoolExecutor(workers) as pool:
        remaining = _read_ahead(pool, Files(root), tracklets[done:], keep, 2 * workers)
        while done < len(tracklets):
            try:
                count = _write_shard(remaining, *shard_paths(folder, number), largest_shard)
            except OSError as error:
                raise UserError(
                    f"{shard_paths(folder, number)[0]} cannot be written ({error.strerror}): make "
                    f"room and run `reid pack` again, the {number} shards before it stay"
                ) from None
            done, number = done + count, number + 1
            if not quiet:
                progress.advance(count, f"{number} shards")
    shards = [shard_paths(folder, shard) for shard in range(number)]
    facts = [
        {"tar_bytes": tar.stat().st_size, "table_sha256": sha256_of_file(table)}
        for tar, table in shards
    ]
    write_json(folder / "pack.json", {"shards": facts})


def _whole_shards(tracklets: Sequence[Tracklet], folder: Path, keep: Selection) -> tuple[int, int]:
    """How many tracklets, in how many shards, an earlier run has packed as they are today."""
    done = number = 0
    while all(path.is_file() for path in shard_paths(folder, number)):
        try:
            rows = read_rows(shard_paths(folder, number)[1])
        except UserError:  # damaged or of another version: packed anew
            break
        part = tracklets[done : done + len(rows)]
        if len(part) < len(rows) or not all(
            row.matches(tracklet) and row.kept.tolist() == list(keep(tracklet))
            for row, tracklet in zip(rows, part, strict=True)
        ):
            break
        done, number = done + len(rows), number + 1
    return done, number


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
        frames = [files.read(tracklet, position) for position in kept]
        is_whole = len(kept) == len(tracklet.frames)
        if is_whole and tracklet.size not in (None, sum(map(len, frames))):
            raise UserError(
                f"frames of {files.root / tracklet.path} have other sizes than when indexed: run "
                "`reid index` again"
            )
        return tracklet, kept, frames

    todo = iter(tracklets)
    waiting: deque[Future[_Content]] = deque(pool.submit(read, t) for t in islice(todo, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(read, tracklet) for tracklet in islice(todo, 1))


def _write_shard(remaining: Iterable[_Content], tar: Path, table: Path, largest: int) -> int:
    """Write the next shard; returns its number of tracklets."""
    rows = []
    with replacing(tar) as temporary, temporary.open("wb") as out:
        for tracklet, kept, frames in remaining:
            path, indexed, names = identity_of(tracklet)
            offsets = []
            for position, data in zip(kept, frames, strict=True):
                out.write(_header(f"{tracklet.folder}/{tracklet.frames[position]}", len(data)))
                offsets.append(out.tell())
                out.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            sizes = list(map(len, frames))
            if indexed is None:
                indexed = sum(sizes) if len(kept) == len(tracklet.frames) else UNKNOWN
            arrays = map(np.array, (kept, offsets, sizes, list(map(zlib.crc32, frames))))
            rows.append(Row(path, names, indexed, *arrays)._asdict())
            if out.tell() >= largest:
                break
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    with replacing(table) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary, compression="zstd")
    return len(rows)


def _header(name: str, size: int) -> bytes:
    """Header of a tar member; the same bytes at any time and on any machine."""
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:  # the name is too long for one block
        return member.tobuf(tarfile.PAX_FORMAT)


def verify(folder: Path) -> None:
    """Compare every frame with its CRC-32. Raises UserError naming the first file that differs."""
    for tar, rows in open_shards(folder):
        for row in rows:
            for place in range(len(row.offset)):
                row.read(tar, place)


def run(config: Config, *, frames_per_tracklet: int | None = None) -> None:
    """`reid pack`: all indexed tracklets into `runtime.pack`.

    With `frames_per_tracklet` only some frames of queries and gallery, see `sampled`. Raises
    UserError as `pack` does, and when `reid check` found frames damaged that are still in the
    index.
    """
    options, folder = config.dataset, _folder(config)
    keep: Selection = whole
    if frames_per_tracklet is not None:
        keep = sampled(frames_per_tracklet, [options.clip for options in config.trainings.values()])
    tracklets = read_all(config)
    listed = options.damaged or Results.of(config).root / "check" / "damaged.csv"
    if listed.exists():
        demand_undamaged(tracklets, listed)
    pack(tracklets, options.root, folder, dataset=options.name, keep=keep, quiet=False)


def run_verify(config: Config) -> None:
    """`reid pack --verify`. Raises UserError as `verify` does."""
    folder = _folder(config)
    verify(folder)
    print(f"{folder}: every frame is as packed")


def _folder(config: Config) -> Path:
    folder = config.runtime.pack
    if folder is None or folder == Path():
        raise UserError("runtime.pack is not set: name the folder to pack into")
    return folder

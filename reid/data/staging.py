"""A pack on a disk of the node itself, copied there once whatever the number of jobs."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid.config import Runtime
from reid.data.packed import PARTS, damaged, read_manifest, shard_path
from reid.errors import UserError
from reid.files import replacing, sha256_of_file
from reid.progress import Progress

_CHUNK = 1 << 24


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
    """Copy a pack into a folder of its own under `node`; returns that folder.

    Jobs of one node take turns: the first copies, the others find it whole. What a killed job
    left is finished. Raises UserError when there is no room, or a copy differs from the pack.
    """
    shards = read_manifest(pack)["shards"]
    digest = sha256_of_file(pack / "pack.json")[:16]
    folder = node / f"xfd-reid-pack-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / ".lock"):
        if (folder / "pack.json").exists():
            return folder
        missing = [
            (number, suffix)
            for number in range(len(shards))
            for suffix in PARTS
            if not shard_path(folder, number, suffix).exists()
        ]
        size = sum(shard_path(pack, *part).stat().st_size for part in missing)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                f"{folder}: {size / 1e9:.1f} GB of {pack} to copy, {free / 1e9:.1f} GB free: "
                "change or unset runtime.stage_to"
            )
        progress = Progress(f"copy of {pack}", max(1, size >> 20), "MiB")
        for number, suffix in missing:
            source = shard_path(pack, number, suffix)
            copied = _copy(source, shard_path(folder, number, suffix))
            if suffix in shards[number] and copied != shards[number][suffix]:
                shard_path(folder, number, suffix).unlink()
                raise damaged(source)
            if not quiet:
                progress.advance(source.stat().st_size >> 20)
        _copy(pack / "pack.json", folder / "pack.json")
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for the lock of this node; the kernel frees it when its holder dies."""
    with path.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _copy(source: Path, target: Path) -> str:
    """Copy a file atomically; returns the SHA-256 of what was read."""
    digest = hashlib.sha256()
    try:
        with (
            replacing(target) as temporary,
            source.open("rb") as reading,
            temporary.open("wb") as out,
        ):
            while data := reading.read(_CHUNK):
                digest.update(data)
                out.write(data)
    except OSError as error:
        raise UserError(f"{source} cannot be copied to {target}: {error.strerror}") from None
    return digest.hexdigest()

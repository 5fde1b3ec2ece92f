"""A pack on a disk of the node itself, copied there once for all jobs of a user."""

import fcntl
import os
import shutil
from pathlib import Path

from reid.claim import claim, remove_temporaries
from reid.config import Runtime
from reid.data.packed import is_part, read_manifest, table_path, tar_path
from reid.errors import UserError
from reid.files import replacing, sha256_of_file
from reid.progress import Progress


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

    Each user has a copy of their own. Jobs take turns: the first copies, the others compare sizes
    and times with the pack and copy what differs, so that an interrupted copy is finished and a
    missing or exchanged file replaced. Raises UserError when there is no room.
    """
    shards = range(len(read_manifest(pack)))
    digest = sha256_of_file(pack / "pack.json")[:16]
    folder = node / f"xfd-reid-pack-{os.getuid()}-{digest}"
    if not node.exists():
        node.mkdir(parents=True, exist_ok=True)
        node.chmod(0o1777)  # other users stage there too, as in /tmp
    with (node / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when its holder dies
        claim(folder, kind="copy of a pack", of=digest, ours=is_part)
        remove_temporaries(folder, is_part)
        sources = [tar_path(pack, shard) for shard in shards]
        sources += [*(table_path(pack, shard) for shard in shards), pack / "pack.json"]
        outdated = [path for path in sources if not _is_copy(folder / path.name, path)]
        size, free = sum(path.stat().st_size for path in outdated), shutil.disk_usage(folder).free
        if size > free:
            raise UserError(
                f"{folder}: {size / 1e9:.1f} GB of {pack} to copy, {free / 1e9:.1f} GB free: "
                "change or unset runtime.stage_to"
            )
        progress = Progress(f"copy of {pack}", max(1, size >> 20), "MiB")
        for source in outdated:
            _copy(source, folder / source.name)
            if not quiet:
                progress.advance(source.stat().st_size >> 20)
    return folder


def _is_copy(target: Path, source: Path) -> bool:
    """Whether both have the same size and modification time."""
    if not target.is_file():
        return False
    copied, original = target.stat(), source.stat()
    return (copied.st_size, copied.st_mtime_ns) == (original.st_size, original.st_mtime_ns)


def _copy(source: Path, target: Path) -> None:
    try:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            shutil.copystat(source, temporary)
    except OSError as error:
        raise UserError(f"{source} cannot be copied to {target}: {error.strerror}") from None

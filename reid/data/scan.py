"""Look into the folders of a dataset, many at a time: what all layouts have in common."""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from reid.data.layout import Scene, Subset, Tracklet
from reid.data.listing import Listing
from reid.data.names import FrameNames
from reid.errors import UserError
from reid.progress import Progress


@dataclass(frozen=True)
class Rejected:
    """A file that is not part of the index (or an empty folder), and why."""

    path: str
    """Relative to the dataset root; bytes that are not UTF-8 are written as escapes."""
    reason: str


@dataclass(frozen=True)
class Found:
    """What was gathered from some folders."""

    tracklets: tuple[Tracklet, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    folders: tuple[tuple[str, int], ...] = ()
    """Those looked into, with their modification times (ns) before that."""


@dataclass(frozen=True)
class Look:
    """How to look at a dataset."""

    root: Path
    check_sizes: bool = True
    """Look at every file to find empty ones; False lists folders only."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Reasons by path of files to leave out."""


@dataclass(frozen=True)
class Unit:
    """Folders that are scanned together, most often those of one person."""

    folder: str
    split: str
    """`train`, a protocol, or `test`: queries and gallery that protocols choose from."""
    scan: Callable[[], Found]


@dataclass(frozen=True)
class Plan:
    """What a layout has to scan."""

    units: Sequence[Unit]
    rejected: Sequence[Rejected] = ()
    stamp: str = ""
    """Changes when the same folders would give something else, for example by another list."""


def scan_units(
    units: Sequence[Unit],
    scan: Callable[[Unit], Found],
    pool: ThreadPoolExecutor,
    *,
    at_once: bool = True,
    quiet: bool = True,
) -> list[Found]:
    """What `scan` finds in each unit, in their order.

    Unless `at_once`, the threads of `pool` are used from the first unit on that this one waited
    for longer than it worked. Where the system has all in memory they only hinder each other.
    """
    found: list[Found] = []
    files = 0
    progress = Progress("index", len(units), "folders")
    started = time.monotonic()
    for one in _scan_all(iter(units), scan, pool, alone=not at_once):
        found.append(one)
        files += sum(len(t.frames) for t in one.tracklets) + len(one.rejected)
        if not quiet:
            rate = files / max(time.monotonic() - started, 1e-6)
            progress.advance(note=f"{files:,} files, {rate:,.0f} files/s")
    return found


def _scan_all(
    units: Iterator[Unit], scan: Callable[[Unit], Found], pool: ThreadPoolExecutor, *, alone: bool
) -> Iterator[Found]:
    for unit in units if alone else ():
        clock, work = time.monotonic(), time.thread_time()
        found = scan(unit)
        work = time.thread_time() - work
        waited = time.monotonic() - clock - work
        yield found
        if waited > work:
            break
    yield from pool.map(scan, units)


def make_tracklet(
    path: str,
    identity: int,
    subset: Subset,
    scene: Scene,
    frames: FrameNames,
    *,
    modified: int,
    size: int | None,
    in_folder: str = "",
) -> Tracklet:
    """A tracklet from what is known of it."""
    return Tracklet(
        identity=identity,
        name=path.rpartition("/")[2],
        path=path,
        subset=subset,
        view=scene.view,
        camera=scene.camera,
        session=scene.session,
        altitude=_or_nan(scene.altitude),
        distance=_or_nan(scene.distance),
        angle=_or_nan(scene.angle),
        frames=frames,
        modified=modified,
        in_folder=in_folder,
        size=size,
    )


def look_at(folder: str, listed: Listing, look: Look) -> tuple[dict[str, str], dict[str, int]]:
    """Reasons by name of files not to use, and the sizes of the others (when `check_sizes`)."""
    bad: dict[str, str] = {}
    sizes: dict[str, int] = {}
    if look.check_sizes:
        descriptor = os.open(look.root / folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in listed.names():
                try:
                    status = os.stat(name, dir_fd=descriptor)
                except OSError as error:
                    bad[name] = f"cannot be read: {error.strerror}"
                    continue
                if status.st_size == 0:
                    bad[name] = "zero bytes"
                elif not stat.S_ISREG(status.st_mode):
                    bad[name] = "not a file"
                else:
                    sizes[name] = status.st_size
        finally:
            os.close(descriptor)
    if look.damaged:
        paths = {name: f"{folder}/{name}" for name in listed.names()}
        bad |= {name: look.damaged[path] for name, path in paths.items() if path in look.damaged}
    return bad, sizes


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name. Raises UserError."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None


IGNORED = "of the system, ignored"
"""Why files are left out that systems put into folders: they count as no part of the dataset."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder is one that systems put anywhere, or hidden."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")


def reject_entry(root: Path, path: str, reason: str) -> list[Rejected]:
    """Leave out what is at `path`; of a folder, every file."""
    if is_ignored(path.rpartition("/")[2]):
        return [reject(path, IGNORED)]
    if (root / path).is_dir():
        return list(reject_below(root, path, "folder inside a tracklet folder"))
    return [reject(path, reason if is_text(path) else "file name is not UTF-8")]


def reject_below(root: Path, folder: str, reason: str) -> Iterator[Rejected]:
    """Every file below `folder`, so that the share of rejected files is honest."""
    empty = True
    for entry in entries(root / folder):
        empty = False
        place = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from reject_below(root, place, reason)
        else:
            yield reject(place, reason)
    if empty:
        yield reject(folder, reason)


def reject(path: str, reason: str) -> Rejected:
    """Leave out one file."""
    return Rejected(path.encode("utf-8", "backslashreplace").decode(), reason)


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value

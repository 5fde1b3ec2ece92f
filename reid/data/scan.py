"""Walk a dataset in the DetReIDX layout: tracklets, and every file that is not part of one."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from reid.data.layout import (
    GrammarError,
    Scene,
    Subset,
    Tracklet,
    parse_identity,
    parse_scene,
    why_not_a_frame,
)
from reid.data.names import FrameNames, Run, group
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
    """What a walk gathered."""

    tracklets: tuple[Tracklet, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Walk:
    """How to walk a subset's folder."""

    folder: str
    """Relative to the dataset root."""
    subset: Subset
    check_sizes: bool = True
    """Look at every file to find empty ones; False lists folders only."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Reasons by path of files to leave out."""


def scan_subset(root: Path, walk: Walk, pool: ThreadPoolExecutor, *, quiet: bool = True) -> Found:
    """All tracklets under `root/folder/PID/TRACKLET`, by identity, then by folder name.

    Files at unexpected places, of unknown names, empty, or at odds with the rest of their
    tracklet are rejected. Raises UserError when a folder cannot be read or two folders are one
    identity.
    """
    people: dict[int, str] = {}
    strays: list[Rejected] = []
    for entry in _entries(root / walk.folder):
        place = f"{walk.folder}/{entry.name}"
        if not entry.is_dir():
            strays.append(_reject(place, "file outside a tracklet folder"))
            continue
        try:
            identity = parse_identity(entry.name)
        except GrammarError as error:
            strays += _reject_below(root, place, str(error))
            continue
        if identity in people:
            raise UserError(
                f"{root / people[identity]} and {root / place} are both identity {identity}: "
                "rename or merge them"
            )
        people[identity] = place
    found: list[Found] = []
    frames = 0
    progress = Progress(f"index of {walk.folder}", len(people), "people")
    for one in pool.map(lambda i: _scan_person(root, people[i], i, walk), sorted(people)):
        found.append(one)
        frames += sum(len(tracklet.frames) for tracklet in one.tracklets)
        if not quiet:
            progress.advance(note=f"{frames:,} frames")
    return Found(
        tuple(tracklet for one in found for tracklet in one.tracklets),
        (*strays, *(rejected for one in found for rejected in one.rejected)),
    )


def _scan_person(root: Path, folder: str, identity: int, walk: Walk) -> Found:
    tracklets: list[Tracklet] = []
    rejected: list[Rejected] = []
    entries = _entries(root / folder)
    if not entries:
        rejected.append(_reject(folder, "empty person folder"))
    for entry in entries:
        place = f"{folder}/{entry.name}"
        if not entry.is_dir():
            rejected.append(_reject(place, "file outside a tracklet folder"))
        elif not _is_text(entry.name):
            rejected += _reject_below(root, place, "folder name is not UTF-8")
        else:
            tracklet, bad = _scan_tracklet(root, place, identity, walk)
            rejected += bad
            if tracklet is not None:
                tracklets.append(tracklet)
    return Found(tuple(tracklets), tuple(rejected))


def _scan_tracklet(
    root: Path, folder: str, identity: int, walk: Walk
) -> tuple[Tracklet | None, list[Rejected]]:
    # Taken before the listing: a change in between then shows as a stale index, not as none.
    modified = (root / folder).stat().st_mtime_ns
    names = _names(root / folder)
    if not names:
        return None, [_reject(folder, "empty tracklet")]
    bad = _unusable(root / folder, names) if walk.check_sizes else {}
    if walk.damaged:
        paths = {name: f"{folder}/{name}" for name in names}
        bad |= {name: walk.damaged[paths[name]] for name in names if paths[name] in walk.damaged}
    runs, others = group(names if not bad else [name for name in names if name not in bad])
    for name in others:
        bad[name] = why_not_a_frame(name)
    scenes: list[tuple[Scene, Run]] = []
    votes: Counter[Scene] = Counter()
    for run in runs:
        try:
            seen = parse_scene(run.head, run.suffix, identity)
        except GrammarError as error:
            bad |= dict.fromkeys(FrameNames([run]), str(error))
        else:
            scenes.append((seen, run))
            votes[seen] += len(run.numbers)
    scene = max(votes, key=votes.__getitem__, default=None)
    odd = FrameNames(run for own, run in scenes if own != scene)
    bad |= dict.fromkeys(
        odd, "view, height, distance, angle or session differs from the rest of its tracklet"
    )
    rejected = [
        one for name in sorted(bad) for one in _reject_entry(root, f"{folder}/{name}", bad[name])
    ]
    if scene is None:
        return None, rejected
    tracklet = Tracklet(
        identity=identity,
        name=PurePosixPath(folder).name,
        path=folder,
        subset=walk.subset,
        view=scene.view,
        camera=scene.camera,
        session=scene.session,
        altitude=_or_nan(scene.altitude),
        distance=_or_nan(scene.distance),
        angle=_or_nan(scene.angle),
        frames=FrameNames(run for own, run in scenes if own == scene),
        modified=modified,
    )
    return tracklet, rejected


def _unusable(folder: Path, names: list[str]) -> dict[str, str]:
    """Names of what has no content, is no file or cannot be looked at, with the reason."""
    found = {}
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            try:
                status = os.stat(name, dir_fd=descriptor)
            except OSError as error:
                found[name] = f"cannot be read: {error.strerror}"
            else:
                if status.st_size == 0:
                    found[name] = "zero bytes"
                elif not stat.S_ISREG(status.st_mode):
                    found[name] = "not a file"
    finally:
        os.close(descriptor)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only, and faster
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None


def _reject_entry(root: Path, path: str, reason: str) -> list[Rejected]:
    if (root / path).is_dir():
        return list(_reject_below(root, path, "folder inside a tracklet folder"))
    return [_reject(path, reason if _is_text(path) else "file name is not UTF-8")]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None


def _reject_below(root: Path, folder: str, reason: str) -> Iterator[Rejected]:
    """Every file below `folder`, so that the share of rejected files is honest."""
    empty = True
    for entry in _entries(root / folder):
        empty = False
        place = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _reject_below(root, place, reason)
        else:
            yield _reject(place, reason)
    if empty:
        yield _reject(folder, reason)


def _reject(path: str, reason: str) -> Rejected:
    return Rejected(path.encode("utf-8", "backslashreplace").decode(), reason)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value

"""Walk a dataset in the DetReIDX layout: tracklets, and every file that is not part of one."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reid.data.layout import GrammarError, Scene, Subset, Tracklet, parse_frame, parse_identity
from reid.errors import UserError


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


def scan_subset(root: Path, folder: str, subset: Subset, pool: ThreadPoolExecutor) -> Found:
    """All tracklets under `root/folder/PID/TRACKLET`, by identity, then by folder name.

    Files at unexpected places, of unknown names, empty, or at odds with the rest of their
    tracklet are rejected. Raises UserError when a folder cannot be read or two folders are one
    identity.
    """
    people: dict[int, str] = {}
    strays: list[Rejected] = []
    for entry in _entries(root / folder):
        place = f"{folder}/{entry.name}"
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
    order = sorted(people)
    found = list(pool.map(lambda i: _scan_person(root, people[i], i, subset), order))
    return Found(
        tuple(tracklet for one in found for tracklet in one.tracklets),
        (*strays, *(rejected for one in found for rejected in one.rejected)),
    )


def _scan_person(root: Path, folder: str, identity: int, subset: Subset) -> Found:
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
            tracklet, bad = _scan_tracklet(root, place, identity, subset)
            rejected += bad
            if tracklet is not None:
                tracklets.append(tracklet)
    return Found(tuple(tracklets), tuple(rejected))


def _scan_tracklet(
    root: Path, folder: str, identity: int, subset: Subset
) -> tuple[Tracklet | None, list[Rejected]]:
    # Taken before the listing: a change in between then shows as a stale index, not as none.
    modified = (root / folder).stat().st_mtime_ns
    scenes: dict[str, Scene] = {}
    rejected: list[Rejected] = []
    entries = _entries(root / folder)
    if not entries:
        return None, [_reject(folder, "empty tracklet")]
    for entry in entries:
        place = f"{folder}/{entry.name}"
        if entry.is_dir():
            rejected += _reject_below(root, place, "folder inside a tracklet folder")
            continue
        try:
            scenes[entry.name] = _frame(entry, identity)
        except GrammarError as error:
            rejected.append(_reject(place, str(error)))
    if not scenes:
        return None, rejected
    scene = Counter(scenes.values()).most_common(1)[0][0]
    odd = "view, height, distance, angle or session differs from the rest of its tracklet"
    rejected += [_reject(f"{folder}/{name}", odd) for name, own in scenes.items() if own != scene]
    tracklet = Tracklet(
        identity=identity,
        name=PurePosixPath(folder).name,
        path=folder,
        subset=subset,
        view=scene.view,
        camera=scene.camera,
        session=scene.session,
        altitude=_or_nan(scene.altitude),
        distance=_or_nan(scene.distance),
        angle=_or_nan(scene.angle),
        frames=tuple(name for name, own in scenes.items() if own == scene),
        modified=modified,
    )
    return tracklet, rejected


def _frame(entry: os.DirEntry[str], identity: int) -> Scene:
    if not _is_text(entry.name):
        raise GrammarError("file name is not UTF-8")
    scene = parse_frame(entry.name, identity)
    try:
        size = entry.stat().st_size
    except OSError as error:
        raise GrammarError(f"cannot be read: {error.strerror}") from None
    if size == 0:
        raise GrammarError("zero bytes")
    return scene


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

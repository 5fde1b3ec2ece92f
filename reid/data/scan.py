"""Read the folders of a dataset into tracklets and rejected files, the same for all layouts."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reid.data.detreidx import UnknownName
from reid.data.frames import FOLDER, IGNORED, Listing, is_ignored, is_jpeg, is_text, list_folder
from reid.data.tracklet import FrameNames, Scene, Subset, Tracklet
from reid.errors import UserError

OTHER_SCENE = "view, height, distance, angle or session differs from the rest of its tracklet"


class Rejected(NamedTuple):
    """A file that is not part of the index (or an empty folder), and why."""

    path: str
    """Relative to the dataset root; bytes that are not UTF-8 are written as escapes."""
    reason: str


@dataclass(frozen=True)
class Source:
    """A tracklet that a layout has found, before its files are looked at."""

    path: str
    """Unique, relative to the dataset root."""
    folder: str
    """Where its frames lie."""
    identity: int
    subset: Subset
    scene: Scene | Callable[[str], Scene]
    """Or a function of a file name, which raises UnknownName."""
    frames: Sequence[str] | None = None
    """None: all JPEGs of the folder."""
    protocol: str = "test"
    """Of a query or gallery tracklet; `test`: protocols choose from these."""

    @property
    def split(self) -> str:
        """`train` or the protocol."""
        return "train" if self.subset == "train" else self.protocol


@dataclass(frozen=True)
class Contents:
    """What a layout finds under a dataset root."""

    sources: Sequence[Source]
    rejected: Sequence[Rejected] = ()
    complete: bool = True
    """Files that no source takes are rejected; else they are none of the index's business."""


@dataclass(frozen=True)
class Look:
    """How to look at a dataset."""

    root: Path
    check_sizes: bool = True
    """Look at every file to find empty ones; False lists folders only."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Reasons by path of files to leave out."""


class Read(NamedTuple):
    """What `read_folder` makes of one folder."""

    tracklets: list[Tracklet]
    rejected: list[Rejected]
    modified: int
    """When the folder last changed: ns since the epoch, taken before it was listed."""


def read_folder(folder: str, sources: Sequence[Source], look: Look, *, complete: bool) -> Read:
    """Tracklets of the `sources` of one folder, and its rejected files. Raises UserError."""
    if not (look.root / folder).is_dir():
        raise UserError(f"{look.root / folder} is not a folder, but a list of the dataset names it")
    listing = list_folder(f"{look.root}/{folder}", check_sizes=look.check_sizes)
    if look.damaged:
        for name in [n for n in listing.frames if f"{folder}/{n}" in look.damaged]:
            del listing.frames[name]
            listing.problems[name] = look.damaged[f"{folder}/{name}"]
    tracklets, used = [], set[str]()
    for source in sources:
        names, scene = _frames_of(source, listing)
        used.update(names if source.frames is None else source.frames)
        if names and scene:
            tracklets.append(_tracklet(source, scene, names, listing, look))
    whole = any(source.frames is None for source in sources)
    if whole and not tracklets and all(why == IGNORED for why in listing.problems.values()):
        rejected = _rejected(folder, listing.problems, look.root)
        return Read([], [*rejected, reject(folder, "empty tracklet")], listing.modified)
    missing = {name for source in sources for name in source.frames or ()} - listing.frames.keys()
    reasons = {name: listing.problems.get(name, "listed, but missing") for name in missing}
    if complete:
        reasons |= listing.problems
        reasons |= dict.fromkeys(listing.frames.keys() - used, "in no list of the dataset")
    elif whole:
        reasons |= {name: why for name, why in listing.problems.items() if is_jpeg(name)}
        if not tracklets and not reasons:
            return Read([], [reject(folder, "no .jpg file in it")], listing.modified)
    return Read(tracklets, _rejected(folder, reasons, look.root), listing.modified)


def _frames_of(source: Source, listing: Listing) -> tuple[list[str], Scene | None]:
    """Frames of a source with their scene; others go from frames to problems of `listing`."""
    wanted = listing.frames if source.frames is None else source.frames
    names = [name for name in wanted if name in listing.frames]
    if isinstance(source.scene, Scene):
        return names, source.scene
    scenes: dict[Scene, list[str]] = {}
    problems = {}
    for name in names:
        try:
            scenes.setdefault(source.scene(name), []).append(name)
        except UnknownName as error:
            problems[name] = str(error)
    scene = max(scenes, key=lambda scene: len(scenes[scene]), default=None)
    for other in scenes.keys() - {scene}:
        problems |= dict.fromkeys(scenes[other], OTHER_SCENE)
    for name in problems:
        del listing.frames[name]
    listing.problems.update(problems)
    return scenes.get(scene, []) if scene else [], scene


def _tracklet(
    source: Source, scene: Scene, names: Sequence[str], listing: Listing, look: Look
) -> Tracklet:
    facts = scene._asdict()
    for measure in ("altitude", "distance", "angle"):
        facts[measure] = math.nan if facts[measure] is None else facts[measure]
    return Tracklet(
        identity=source.identity,
        name=source.path.rpartition("/")[2],
        path=source.path,
        subset=source.subset,
        **facts,
        frames=FrameNames.of(names),
        in_folder="" if source.frames is None else source.folder,
        size=sum(listing.frames[name] or 0 for name in names) if look.check_sizes else None,
    )


def entries(folder: Path) -> list["os.DirEntry[str]"]:
    """What is in a folder, by name. Raises UserError."""
    try:
        with os.scandir(folder) as opened:
            return sorted(opened, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None


def subfolders(root: Path, folder: str, rejected: list[Rejected]) -> Iterator[str]:
    """Names of the folders in `root/folder`; what else lies there goes to `rejected`."""
    for entry in entries(root / folder):
        path = f"{folder}/{entry.name}"
        if is_ignored(entry.name):
            rejected.append(reject(path, IGNORED))
        elif not entry.is_dir():
            rejected.append(reject(path, "file outside a tracklet folder"))
        elif not is_text(entry.name):
            rejected += reject_below(root, path, "folder name is not UTF-8")
        else:
            yield entry.name


def _rejected(folder: str, reasons: Mapping[str, str], root: Path) -> list[Rejected]:
    rejected = []
    for name, reason in sorted(reasons.items()):
        path = f"{folder}/{name}"
        if reason == FOLDER:
            rejected += reject_below(root, path, reason)
        else:
            rejected.append(reject(path, reason))
    return rejected


def reject_below(root: Path, folder: str, reason: str) -> list[Rejected]:
    """Every file below `folder`, so that the share of rejected files is honest."""
    rejected = []
    for entry in entries(root / folder):
        path = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            rejected += reject_below(root, path, reason)
        else:
            rejected.append(reject(path, reason))
    return rejected or [reject(folder, reason)]


def reject(path: str, reason: str) -> Rejected:
    """Leave out one file."""
    return Rejected(path.encode("utf-8", "backslashreplace").decode(), reason)


def number_identities(names: Collection[str]) -> dict[str, int]:
    """The number of each person's name: the name itself if all are different integers, else its
    rank among all. `7` and `007` are two people."""
    every = sorted(set(names))
    numeric = all(name.isascii() and name.isdigit() and int(name) < 2**63 for name in every)
    if numeric and len({int(name) for name in every}) == len(every):
        return {name: int(name) for name in every}
    return {name: rank for rank, name in enumerate(every)}

"""Read the folders of a dataset into tracklets and rejected files, the same for all layouts."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from reid.data.detreidx import UnknownName
from reid.data.frames import FOLDER, IGNORED, NOT_UTF8, is_image, list_folder
from reid.data.lists import Rejected
from reid.data.stored import demand_folder
from reid.data.tracklet import FrameNames, Scene, Subset, Tracklet
from reid.errors import UserError

OTHER_SCENE = "view, height, distance, angle or session differs from the rest of its tracklet"


@dataclass(frozen=True)
class Source:
    """A tracklet that a layout has found, before its files are looked at."""

    path: str
    """Unique, relative to the dataset root."""
    folder: str
    """Where its frames lie; `path`, unless `frames` names them."""
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


class Read(NamedTuple):
    """What `read_folder` makes of one folder."""

    tracklets: list[Tracklet]
    rejected: list[Rejected]
    modified: int
    """When the folder last changed: ns since the epoch, taken before it was listed."""


def read_folder(
    root: Path,
    folder: str,
    sources: Sequence[Source],
    *,
    complete: bool,
    check_sizes: bool,
    damaged: Mapping[str, str] = {},
) -> Read:
    """Tracklets of the `sources` of one folder, and its rejected files. Raises UserError.

    `complete` as in Contents, `check_sizes` and `damaged` as of `reid.data.index.build`.
    """
    if not (root / folder).is_dir():
        raise UserError(f"{root / folder} is not a folder, but a list of the dataset names it")
    listing = list_folder(f"{root}/{folder}", check_sizes=check_sizes)
    sizes = {n: b for n, b in listing.frames.items() if f"{folder}/{n}" not in damaged}
    unusable = {n: damaged[f"{folder}/{n}"] for n in listing.frames.keys() - sizes.keys()}
    problems = listing.problems | unusable
    tracklets, wanted = [], set[str]()
    for source in sources:
        listed = sizes if source.frames is None else source.frames
        wanted.update(listed)
        scene, names, others = _of_one_scene([n for n in listed if n in sizes], source.scene)
        problems |= others
        if scene is not None:
            size = sum(sizes[name] or 0 for name in names) if check_sizes else None
            tracklets.append(_tracklet(source, scene, names, size))
    problems = {
        **dict.fromkeys(wanted - sizes.keys(), "listed, but missing"),
        **dict.fromkeys(sizes.keys() - wanted, "in no list of the dataset"),
        **problems,
    }
    whole = any(source.frames is None for source in sources)
    if not complete:
        problems = {n: why for n, why in problems.items() if n in wanted or (whole and is_image(n))}
    rejected = [
        row for name in sorted(problems) for row in reject(root, f"{folder}/{name}", problems[name])
    ]
    if whole and not tracklets and all(why == IGNORED for why in problems.values()):
        rejected.append(Rejected(folder, "empty tracklet: no .jpg file in it"))
    return Read(tracklets, rejected, listing.modified)


def _of_one_scene(
    names: Sequence[str], scene: Scene | Callable[[str], Scene]
) -> tuple[Scene | None, Sequence[str], dict[str, str]]:
    """The scene of most frames, these frames, and reasons to leave out the others."""
    if isinstance(scene, Scene):
        return (scene if names else None), names, {}
    scenes: dict[Scene, list[str]] = {}
    problems = {}
    for name in names:
        try:
            scenes.setdefault(scene(name), []).append(name)
        except UnknownName as error:
            problems[name] = str(error)
    most = max(scenes, key=lambda one: len(scenes[one]), default=None)
    kept = [] if most is None else scenes.pop(most)
    problems |= {name: OTHER_SCENE for names in scenes.values() for name in names}
    return most, kept, problems


def _tracklet(source: Source, scene: Scene, names: Sequence[str], size: int | None) -> Tracklet:
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
        size=size,
    )


def subfolders(root: Path, folder: str, rejected: list[Rejected]) -> list[str]:
    """Names of the folders in `root/folder`; what else lies there goes to `rejected`.

    Raises UserError when the folder is missing.
    """
    hint = "add it, or correct dataset.root, dataset.layout or dataset.protocols"
    demand_folder(root / folder, hint)
    listing = list_folder(root / folder, check_sizes=False)
    problems = dict.fromkeys(listing.frames, "") | listing.problems
    for name in sorted(name for name, why in problems.items() if why != FOLDER):
        known = problems[name] in (IGNORED, NOT_UTF8)
        reason = problems[name] if known else "file outside a tracklet folder"
        rejected += reject(root, f"{folder}/{name}", reason)
    return sorted(name for name, why in problems.items() if why == FOLDER)


def reject(root: Path, path: str, reason: str) -> list[Rejected]:
    """Leave out a file, or every file below a folder: the share of rejected files counts files."""
    if reason != IGNORED and (root / path).is_dir() and not (root / path).is_symlink():
        listing = list_folder(root / path, check_sizes=False)
        if names := sorted(listing.frames | listing.problems):
            return [row for name in names for row in reject(root, f"{path}/{name}", reason)]
    return [Rejected(path.encode("utf-8", "backslashreplace").decode(), reason)]


def number_identities(names: Collection[str]) -> dict[str, int]:
    """The number of each person's name: the name itself if all are different integers, else its
    rank among all. `7` and `007` are two people."""
    every = sorted(set(names))
    numeric = all(name.isascii() and name.isdigit() and int(name) < 2**63 for name in every)
    if numeric and len({int(name) for name in every}) == len(every):
        return {name: int(name) for name in every}
    return {name: rank for rank, name in enumerate(every)}

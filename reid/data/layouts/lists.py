"""Layouts that are lists: tracklets named by a file, then looked for on the disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from reid.data.layout import Scene, Subset, is_jpeg
from reid.data.listing import list_folder
from reid.data.names import FrameNames, group
from reid.data.scan import (
    IGNORED,
    Found,
    Look,
    Plan,
    Rejected,
    Unit,
    is_ignored,
    is_text,
    look_at,
    make_tracklet,
    reject,
)
from reid.errors import UserError


@dataclass(frozen=True)
class Listed:
    """A tracklet as a list has it."""

    path: str
    """Unique, relative to the dataset root."""
    folder: str
    """Where its frames lie."""
    identity: int
    subset: Subset
    scene: Scene
    frames: FrameNames | None
    """None: all JPEGs of the folder."""

    @property
    def split(self) -> str:
        """Split of its unit."""
        return "train" if self.subset == "train" else "test"


def plan_lists(look: Look, listed: Iterable[Listed], *, complete: bool, stamp: str) -> Plan:
    """A unit per folder, in order of first mention.

    `complete`: the list is meant to name every file of its folders, others are rejected.
    """
    by_folder: dict[tuple[str, str], list[Listed]] = {}
    for one in listed:
        by_folder.setdefault((one.split, one.folder), []).append(one)
    return Plan(
        [
            Unit(folder, split, partial(_scan, look, folder, own, complete))
            for (split, folder), own in by_folder.items()
        ],
        stamp=stamp,
    )


def _scan(look: Look, folder: str, listed: list[Listed], complete: bool) -> Found:
    place = look.root / folder
    if not place.is_dir():
        raise UserError(f"{place} is not a folder, but a list of the dataset names it")
    listing = list_folder(place)
    names = listing.names()
    bad, sizes = look_at(folder, listing, look)
    bad |= {name: "file name is not UTF-8" for name in names if not is_text(name)}
    there = set(names) - bad.keys()
    rejected: list[Rejected] = []
    tracklets = []
    used: set[str] = set()
    for one in listed:
        wanted = one.frames
        if wanted is None:
            wanted = FrameNames(
                group([name for name in names if is_jpeg(name) and not is_ignored(name)])
            )
        used.update(wanted)
        kept = [name for name in wanted if name in there]
        rejected += [
            reject(f"{folder}/{name}", bad.get(name, "listed, but missing"))
            for name in wanted
            if name not in there
        ]
        if kept:
            tracklets.append(
                make_tracklet(
                    one.path,
                    one.identity,
                    one.subset,
                    one.scene,
                    wanted if len(kept) == len(wanted) else FrameNames.of(kept),
                    modified=listing.modified,
                    size=sum(sizes[name] for name in kept) if look.check_sizes else None,
                    in_folder="" if one.folder == one.path else one.folder,
                )
            )
        elif not wanted:
            rejected.append(reject(folder, "empty tracklet"))
    if complete:
        rejected += [
            reject(f"{folder}/{name}", IGNORED if is_ignored(name) else "in no list of the dataset")
            for name in sorted(set(names) - used)
        ]
    return Found(tuple(tracklets), tuple(rejected), ((folder, listing.modified),))

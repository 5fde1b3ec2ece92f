"""Layouts that are folders: PERSON/TRACKLET/frames, and what the names say."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from reid.data.layout import GrammarError, Scene, Subset, Tracklet, parse_identity
from reid.data.listing import Listing, list_folder
from reid.data.names import FrameNames, Run, group
from reid.data.scan import (
    IGNORED,
    Found,
    Look,
    Plan,
    Rejected,
    Unit,
    entries,
    is_ignored,
    is_text,
    look_at,
    make_tracklet,
    reject,
    reject_below,
    reject_entry,
)
from reid.errors import UserError

Grammar = Callable[[str, Run, int], Scene]
"""What the names of a tracklet say: (name of its folder, its frames, identity) -> Scene, or
GrammarError."""


class Part(NamedTuple):
    """A folder of persons."""

    folder: str
    """Relative to the dataset root."""
    split: str
    subset: Subset


def plan_tree(
    look: Look,
    parts: Iterable[Part],
    grammar: Grammar,
    identify: Callable[[str], int] = parse_identity,
) -> Plan:
    """A unit per person folder, by identity. `identify` reads the name of one.

    Raises UserError when a folder cannot be read or two folders are one identity.
    """
    units: list[Unit] = []
    strays: list[Rejected] = []
    for part in parts:
        people: dict[int, str] = {}
        for entry in entries(look.root / part.folder):
            place = f"{part.folder}/{entry.name}"
            if is_ignored(entry.name):
                strays.append(reject(place, IGNORED))
                continue
            if not entry.is_dir():
                strays.append(reject(place, "file outside a tracklet folder"))
                continue
            try:
                identity = identify(entry.name)
            except GrammarError as error:
                strays += reject_below(look.root, place, str(error))
                continue
            if identity in people:
                raise UserError(
                    f"{look.root / people[identity]} and {look.root / place} are both identity "
                    f"{identity}: rename or merge them"
                )
            people[identity] = place
        units += [
            Unit(place, part.split, partial(_scan_person, look, place, identity, part, grammar))
            for identity, place in sorted(people.items())
        ]
    return Plan(units, strays)


def _scan_person(look: Look, folder: str, identity: int, part: Part, grammar: Grammar) -> Found:
    tracklets: list[Tracklet] = []
    rejected: list[Rejected] = []
    # Taken before the listing: a change in between then shows as a stale index, not as none.
    folders = [(folder, (look.root / folder).stat().st_mtime_ns)]
    within = entries(look.root / folder)
    if all(is_ignored(entry.name) for entry in within):
        rejected.append(reject(folder, "empty person folder"))
    for entry in within:
        place = f"{folder}/{entry.name}"
        if is_ignored(entry.name):
            rejected.append(reject(place, IGNORED))
        elif not entry.is_dir():
            rejected.append(reject(place, "file outside a tracklet folder"))
        elif not is_text(entry.name):
            rejected += reject_below(look.root, place, "folder name is not UTF-8")
        else:
            listed = list_folder(f"{look.root}/{place}")
            folders.append((place, listed.modified))
            tracklet, bad = _scan_tracklet(look, place, listed, identity, part.subset, grammar)
            rejected += bad
            if tracklet is not None:
                tracklets.append(tracklet)
    return Found(tuple(tracklets), tuple(rejected), tuple(folders))


def _scan_tracklet(
    look: Look, folder: str, listed: Listing, identity: int, subset: Subset, grammar: Grammar
) -> tuple[Tracklet | None, list[Rejected]]:
    bad, sizes = look_at(folder, listed, look)
    runs = group([name for name in listed.names() if name not in bad]) if bad else listed.runs()
    scenes: dict[Scene, list[Run]] = {}
    for run in runs:
        try:
            if is_ignored(run.head if run.width else run.head + run.suffix):
                raise GrammarError(IGNORED)
            seen = grammar(folder.rpartition("/")[2], run, identity)
            if not is_text(run.head):
                raise GrammarError("file name is not UTF-8")
        except GrammarError as error:
            bad |= dict.fromkeys(FrameNames([run]), str(error))
        else:
            scenes.setdefault(seen, []).append(run)
    scene = max(scenes, key=lambda own: sum(len(run.numbers) for run in scenes[own]), default=None)
    for own in scenes.keys() - {scene}:
        bad |= dict.fromkeys(
            FrameNames(scenes[own]),
            "view, height, distance, angle or session differs from the rest of its tracklet",
        )
    rejected = [
        one
        for name in sorted(bad)
        for one in reject_entry(look.root, f"{folder}/{name}", bad[name])
    ]
    if scene is None:
        if all(map(is_ignored, bad)):
            rejected.append(reject(folder, "empty tracklet"))
        return None, rejected
    size = sum(sizes.values()) - sum(sizes.get(name, 0) for name in bad)
    return (
        make_tracklet(
            folder,
            identity,
            subset,
            scene,
            FrameNames(scenes[scene]),
            modified=listed.modified,
            size=size if look.check_sizes else None,
        ),
        rejected,
    )


def parts_of(folder: str, split: str) -> list[Part]:
    """The query and gallery folders below `folder`."""
    subsets: tuple[Subset, ...] = ("query", "gallery")
    return [Part(f"{folder}/{subset}" if folder else subset, split, subset) for subset in subsets]

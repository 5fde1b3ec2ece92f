"""The conventions of folders and file names that `dataset.layout` chooses among.

How each is laid out, what it was written from, and how to add one: docs/DATA.md.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from reid.data import detreidx
from reid.data.detreidx import PROTOCOL_FOLDERS, UnknownName, parse_person
from reid.data.frames import IGNORED
from reid.data.lists import Rejected
from reid.data.manifest import LARGEST_CAMERA, find_manifest
from reid.data.scan import Contents, Source, number_identities, reject, subfolders
from reid.data.stored import count_cameras
from reid.data.tracklet import Scene, Subset, View
from reid.errors import UserError
from reid.files import demand_regular

SceneOf = Callable[[str, int, str], Scene]
"""Name of a tracklet's folder, identity of its person and file name of a frame -> its scene."""


@dataclass(frozen=True)
class Layout:
    """A convention of folders and file names."""

    protocols: Sequence[str]
    """Those that it can serve."""
    cameras: tuple[str, ...] | None
    """What camera 0, 1, ... is; None: numbered in the data."""
    find: Callable[[Path, Sequence[str], Path | None], Contents]
    """Sources under a root, given protocols and `dataset.manifest`."""
    swapped: Sequence[str] = ()
    """Protocols in which the dataset's queries are the gallery, and its gallery the queries."""


class Part(NamedTuple):
    """A folder of persons, PERSON/TRACKLET/*.jpg, relative to the dataset root."""

    folder: str
    subset: Subset
    protocol: str = "test"


def find_tree(
    root: Path,
    parts: Iterable[Part],
    scene_of: SceneOf,
    identify: Callable[[str], int] = parse_person,
) -> Contents:
    """Tracklets of folders PERSON/TRACKLET, by identity. `identify` reads the name of a person.

    Raises UserError when a folder is missing or two folders are one identity.
    """
    sources: list[Source] = []
    rejected: list[Rejected] = []
    for part in parts:
        people: dict[int, str] = {}
        for name in subfolders(root, part.folder, rejected):
            path = f"{part.folder}/{name}"
            try:
                other = people.setdefault(identify(name), path)
            except UnknownName as error:
                rejected += reject(root, path, str(error))
                continue
            if other != path:
                raise UserError(
                    f"{root / other} and {root / path} are both identity {identify(name)}: rename "
                    "or merge them"
                )
        for identity, person in sorted(people.items()):
            others: list[Rejected] = []
            names = subfolders(root, person, others)
            if not names and all(row.reason == IGNORED for row in others):
                others.append(Rejected(person, "empty person folder"))
            rejected += others
            for name in names:
                path, scene = f"{person}/{name}", partial(scene_of, name, identity)
                source = Source(path, path, identity, part.subset, scene, protocol=part.protocol)
                sources.append(source)
    return Contents(sources, rejected)


# -- DetReIDX and AG-VPReID: train/, and a folder per protocol -------------------------------------


def _find_cases(
    root: Path, protocols: Sequence[str], _: Path | None, *, scene_of: SceneOf
) -> Contents:
    parts = [Part("train", "train")]
    for protocol in protocols:
        folder = PROTOCOL_FOLDERS[protocol]
        parts += [Part(f"{folder}/query", "query", protocol)]
        parts += [Part(f"{folder}/gallery", "gallery", protocol)]
    return find_tree(root, parts, scene_of)


def _detreidx(_: str, person: int, name: str) -> Scene:
    identity, scene = detreidx.parse_name(name)
    if identity != person:
        raise UnknownName(f"identity {identity} of the file is not that of its person folder")
    return scene


def _agvpreid(_: str, __: int, name: str) -> Scene:
    cameras = set(re.findall("C([0-9]+)E", name))
    if len(cameras) != 1 or not cameras <= set("012345"):
        raise UnknownName("unknown file name: expected one camera between C and E, 0 to 5")
    camera = int(cameras.pop())
    return Scene("aerial" if camera >= 4 else "ground", camera)


# -- folders: train/, query/, gallery/ of the user's own -------------------------------------------


def _find_folders(root: Path, _: Sequence[str], __: Path | None) -> Contents:
    parts = [Part("train", "train"), Part("query", "query"), Part("gallery", "gallery")]
    people = {name for part in parts for name in subfolders(root, part.folder, [])}
    return find_tree(root, parts, _camera_folder, number_identities(people).__getitem__)


def _camera_folder(tracklet: str, _: int, __: str) -> Scene:
    match = re.fullmatch("c([0-9]{1,3})(?:_.*)?", tracklet, re.DOTALL)
    if match is None or int(match[1]) > LARGEST_CAMERA:
        raise UnknownName(f"tracklet folder is not cN or cN_..., N from 0 to {LARGEST_CAMERA}")
    return Scene(None, int(match[1]))


# -- MARS and G2A-VReID: lists in info/ ------------------------------------------------------------


def _find_mars(root: Path, _: Sequence[str], __: Path | None, *, views: Sequence[View]) -> Contents:
    """Tracklets of MARS's lists; `views` by camera.

    bbox_train/PPPP/PPPPCxTttttFfff.jpg       person, camera from 1, tracklet, frame
    bbox_test/PPPP/...
    info/train_name.txt, test_name.txt        all file names, in order
    info/tracks_train_info.mat, tracks_test_info.mat   rows (first, last, person, camera), from 1
    info/query_IDX.mat                        rows of the test tracklets that are queries, from 1

    The gallery is all test tracklets that are no query; person -1 is junk and left out; person 0
    are distractors and stay. Raises UserError on a list that is missing, damaged or inconsistent.
    """
    info, sources = root / "info", list[Source]()
    queries = set(_matrix(info / "query_IDX.mat", "query_IDX").ravel().tolist())
    for part in ("train", "test"):
        table = info / f"tracks_{part}_info.mat"
        rows, names = _matrix(table, f"track_{part}_info"), _lines(info / f"{part}_name.txt")
        if part == "test" and not queries <= set(range(1, len(rows) + 1)):
            raise UserError(f"{info / 'query_IDX.mat'} names rows that {table.name} lacks")
        for number, (first, last, person, camera) in enumerate(rows.tolist(), start=1):
            if person == -1:
                continue
            if not 1 <= first <= last <= len(names):
                raise UserError(
                    f"{table}: row {number} names frames {first} to {last} of {len(names)}"
                )
            if not 1 <= camera <= len(views):
                raise UserError(f"{table}: row {number} has camera {camera} of {len(views)}")
            frames, head = names[first - 1 : last], f"{person:04d}C{camera}"
            for name in frames:
                if not name.startswith(head):
                    raise UserError(f"{table}: row {number} is {head}, but its frame is {name}")
            subset: Subset = "query" if number in queries else "gallery"
            folder, scene = f"bbox_{part}/{person:04d}", Scene(views[camera - 1], camera - 1)
            sources.append(
                Source(
                    f"{folder}/{Path(frames[0]).stem}",
                    folder,
                    person,
                    "train" if part == "train" else subset,
                    scene,
                    frames,
                )
            )
    return Contents(sources)


def _lines(path: Path) -> list[str]:
    """File names of a list."""
    try:
        return _there(path).read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: expected file names, one a line") from None


def _there(path: Path) -> Path:
    try:
        demand_regular(path, 1 << 30)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: is dataset.layout right?") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return path


def _matrix(path: Path, name: str) -> Any:
    """An integer matrix of a .mat file."""
    try:
        matrix = np.asarray(scipy.io.loadmat(_there(path), variable_names=[name])[name])
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError, MatReadError) as error:
        raise UserError(f"{path} is not a MATLAB file with {name} ({error})") from None
    if matrix.ndim != 2 or (name != "query_IDX" and matrix.shape[1] != 4):
        raise UserError(f"{path}: {name} has shape {matrix.shape}, expected rows of 4")
    return matrix.astype(np.int64)


LAYOUTS = {
    "detreidx": Layout(
        tuple(PROTOCOL_FOLDERS), detreidx.CAMERAS, partial(_find_cases, scene_of=_detreidx)
    ),
    "ag-vpreid": Layout(
        ("A2G", "G2A"),
        ("cctv0", "cctv1", "wearable2", "wearable3", "uav4", "uav5"),
        partial(_find_cases, scene_of=_agvpreid),
    ),
    "mars": Layout(
        ("G2G", "ALL"),
        tuple(f"camera{number}" for number in range(1, 7)),
        partial(_find_mars, views=["ground"] * 6),
    ),
    "g2a-vreid": Layout(
        ("G2A", "A2G"),
        ("ground", "aerial"),
        partial(_find_mars, views=["ground", "aerial"]),
        swapped=("A2G",),
    ),
    "manifest": Layout(
        ("A2G", "G2A", "A2A", "G2G", "ALL"),
        None,
        lambda root, _, manifest: find_manifest(manifest or root / "manifest.csv"),
    ),
    "folders": Layout(("ALL",), None, _find_folders),
}


def cameras_of(name: str, index: Path) -> int:
    """Cameras of a dataset in the layout `name`; `index` is one of its splits, maybe not there.

    Raises UserError when only the index could tell.
    """
    known = LAYOUTS[name].cameras
    if index.exists():
        return count_cameras(index)
    if known is None:
        raise UserError(f"{index} does not exist: run `reid index` (layout {name} needs it)")
    return len(known)

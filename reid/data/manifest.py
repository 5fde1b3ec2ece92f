"""The user's own data by a CSV: one row per frame, or one row per folder of frames.

path       a .jpg, or a folder whose .jpg files are one tracklet; relative to dataset.root
identity   the same text, the same person
camera     a number from 0
split      train, query or gallery
tracklet   optional: distinguishes tracklets in one folder; without it a folder is one tracklet
view, session, altitude, distance, angle   optional, empty where unknown
"""

import csv
import math
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import get_args

from reid.config import nearest
from reid.data.frames import is_jpeg
from reid.data.scan import Contents, Source, number_identities
from reid.data.tracklet import Scene, Subset, View
from reid.errors import UserError

_REQUIRED = ("path", "identity", "camera", "split")
_OPTIONAL = ("tracklet", "view", "session", "altitude", "distance", "angle")
_OTHER_IMAGES = {".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
LARGEST_CAMERA = 126


def find_manifest(path: Path) -> Contents:
    """The tracklets of a manifest. Raises UserError naming the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): see dataset.manifest") from None
    rows = csv.DictReader(StringIO(text, newline=""))
    known, columns = (*_REQUIRED, *_OPTIONAL), rows.fieldnames or ()
    for name in columns:
        if name not in known:
            raise UserError(f"{path}: unknown column {name!r}{nearest(name, known)}")
    if missing := sorted(set(_REQUIRED) - set(columns)):
        raise UserError(f"{path}: column {missing[0]!r} is missing")
    return Contents(_sources(rows, path), complete=False)


def _sources(rows: Iterable[Mapping[str, str]], path: Path) -> list[Source]:
    facts: dict[tuple[str, str], tuple[str, str, Scene]] = {}
    frames: dict[tuple[str, str], list[str]] = {}
    lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        try:
            key, fact, frame = _read_row(row)
            if facts.setdefault(key, fact) != fact:
                raise ValueError(f"differs from an earlier line of the same tracklet, {key[1]}")
            full = f"{fact[0]}/{frame}" if frame else key[1]
            if (earlier := lines.setdefault(full, line)) != line:
                raise ValueError(f"{row['path']} is in line {earlier} already")
            if (key in frames) if not frame else (key[1] in lines):
                raise ValueError("the folder is listed, and frames of it too")
            if frame:
                frames.setdefault(key, []).append(frame)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
    numbers = number_identities({identity for _, identity, _ in facts.values()})
    subsets: dict[str, Subset] = {subset: subset for subset in get_args(Subset)}
    return [
        Source(key[1], folder, numbers[identity], subsets[key[0]], scene, frames.get(key))
        for key, (folder, identity, scene) in facts.items()
    ]


def _read_row(row: Mapping[str, str]) -> tuple[tuple[str, str], tuple[str, str, Scene], str]:
    """(split, tracklet), (folder, identity, scene) and file name, empty for a folder."""
    if None in row or None in row.values():
        raise ValueError("fewer or more fields than columns")
    subset = row["split"]
    if subset not in get_args(Subset):
        raise ValueError(f"split {subset!r} is not one of {', '.join(get_args(Subset))}")
    if not row["identity"]:
        raise ValueError("identity is empty")
    path = PurePosixPath(row["path"])
    if not row["path"] or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {row['path']!r} is not one below dataset.root")
    if path.suffix.lower() in _OTHER_IMAGES:
        raise ValueError(f"{row['path']} is not a .jpg file: convert the frames to JPEG")
    folder, frame = (str(path.parent), path.name) if is_jpeg(path.name) else (str(path), "")
    name = row.get("tracklet") or ""
    tracklet = f"{folder}/{name}" if name and frame else folder
    return (subset, tracklet), (folder, row["identity"], _scene(row)), frame


def _scene(row: Mapping[str, str]) -> Scene:
    camera = row["camera"]
    if not (camera.isascii() and camera.isdigit() and int(camera) <= LARGEST_CAMERA):
        raise ValueError(f"camera {camera!r} is not a number from 0 to {LARGEST_CAMERA}")
    views: dict[str, View | None] = {"": None, **{view: view for view in get_args(View)}}
    view = row.get("view") or ""
    if view not in views:
        raise ValueError(f"view {view!r} is not one of {', '.join(get_args(View))}")
    session = row.get("session") or ""
    if session and not (session.isascii() and session.isdigit() and int(session) < 128):
        raise ValueError(f"session {session!r} is not a small number")
    measures = (_measure(row, name) for name in ("altitude", "distance", "angle"))
    return Scene(views[view], int(camera), int(session) if session else None, *measures)


def _measure(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name) or ""
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} {text!r} is not finite: leave it empty where unknown")
    return value

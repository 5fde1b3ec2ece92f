"""The user's own data by a CSV: a row a frame, or a row a folder of frames.

path       a .jpg, or a folder whose .jpg files are one tracklet; relative to dataset.root
identity   the same text, the same person
camera     a number from 0
split      train, query or gallery
tracklet   optional: tells tracklets in one folder apart; without it a folder is one tracklet
view, session, altitude, distance, angle   optional, empty where unknown
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import get_args

from reid.config import nearest
from reid.data.layout import Scene, Subset, View, is_jpeg
from reid.data.layouts.identities import number_identities
from reid.data.layouts.lists import Listed, plan_lists
from reid.data.names import FrameNames
from reid.data.scan import Look, Plan
from reid.errors import UserError

_NEEDED = ("path", "identity", "camera", "split")
_OPTIONAL = ("tracklet", "view", "session", "altitude", "distance", "angle")
LARGEST_CAMERA = 126


def plan_manifest(look: Look, manifest: Path | None) -> Plan:
    """`manifest` is by default `manifest.csv` in the root. Raises UserError naming the line."""
    path = manifest or look.root / "manifest.csv"
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): see dataset.manifest") from None
    rows = csv.DictReader(StringIO(text, newline=""))
    _check_columns(rows.fieldnames or (), path)
    listed = _group(rows, path)
    return plan_lists(look, listed, complete=False, stamp=hashlib.sha256(content).hexdigest())


def _check_columns(columns: Iterable[str], path: Path) -> None:
    known = (*_NEEDED, *_OPTIONAL)
    for name in columns:
        if name not in known:
            raise UserError(f"{path}: unknown column {name!r}{nearest(name, known)}")
    missing = sorted(set(_NEEDED) - set(columns))
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing")


def _group(rows: Iterable[Mapping[str, str]], path: Path) -> list[Listed]:
    facts: dict[tuple[str, str], tuple[str, str, Scene]] = {}
    frames: dict[tuple[str, str], list[str]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            if None in row or None in row.values():
                raise ValueError("fewer or more fields than columns")
            place, frame = _place(row["path"])
            name = row.get("tracklet") or ""
            subset = row["split"]
            if subset not in get_args(Subset):
                raise ValueError(f"split {subset!r} is not one of {', '.join(get_args(Subset))}")
            if not row["identity"]:
                raise ValueError("identity is empty")
            key = (subset, f"{place}/{name}" if name and frame else place)
            own = (place, row["identity"], _scene(row))
            if facts.setdefault(key, own) != own:
                raise ValueError(f"differs from an earlier line of the same tracklet, {key[1]}")
            if frame:
                frames.setdefault(key, []).append(frame)
            elif key in frames:
                raise ValueError("the folder is listed, and frames of it too")
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
    identify = number_identities(identity for _, identity, _ in facts.values())
    subsets: dict[str, Subset] = {subset: subset for subset in get_args(Subset)}
    return [
        Listed(
            unique,
            place,
            identify(identity),
            subsets[subset],
            scene,
            FrameNames.of(frames[subset, unique]) if (subset, unique) in frames else None,
        )
        for (subset, unique), (place, identity, scene) in facts.items()
    ]


def _place(text: str) -> tuple[str, str]:
    """Folder and file name (empty for a folder)."""
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {text!r} is not one below dataset.root")
    return (str(path.parent), path.name) if is_jpeg(path.name) else (str(path), "")


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

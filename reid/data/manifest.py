"""The user's own data by a CSV: one row per frame, or one row per folder of frames.

path       a .jpg, or a folder whose .jpg files are one tracklet; relative to dataset.root
identity   the same text, the same person
camera     a number from 0
split      train, query or gallery
tracklet   optional: distinguishes tracklets in one folder; without it a folder is one tracklet
view, session, altitude, distance, angle   optional, empty where unknown
"""

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, ValidationError

from reid.config import nearest
from reid.data.frames import is_image, is_jpeg
from reid.data.scan import Contents, Source, number_identities
from reid.data.tracklet import Scene, Subset, View
from reid.errors import UserError
from reid.files import read_regular

LARGEST_CAMERA = 126


def _of_dataset(path: PurePosixPath) -> PurePosixPath:
    if path == PurePosixPath() or path.is_absolute() or ".." in path.parts:
        raise ValueError("not below dataset.root")
    if is_image(path.name) and not is_jpeg(path.name):
        raise ValueError("not a .jpg file: convert the frames to JPEG")
    return path


class _Row(BaseModel):
    path: Annotated[PurePosixPath, AfterValidator(_of_dataset)]
    identity: Annotated[str, Field(min_length=1)]
    camera: Annotated[int, Field(ge=0, le=LARGEST_CAMERA)]
    split: Subset
    tracklet: str = ""
    view: View | None = None
    session: Annotated[int, Field(ge=0, le=127)] | None = None
    altitude: FiniteFloat | None = None
    distance: FiniteFloat | None = None
    angle: FiniteFloat | None = None


def find_manifest(path: Path) -> Contents:
    """The tracklets of a manifest. Raises UserError naming the line."""
    try:
        text = read_regular(path, 1 << 30).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): see dataset.manifest") from None
    rows = csv.DictReader(StringIO(text, newline=""))
    fields, columns = _Row.model_fields, rows.fieldnames or ()
    for name in columns:
        if name not in fields:
            raise UserError(f"{path}: unknown column {name!r}{nearest(name, list(fields))}")
    for name, field in fields.items():
        if field.is_required() and name not in columns:
            raise UserError(f"{path}: column {name!r} is missing")
    return Contents(_sources(rows, path), complete=False)


def _sources(rows: Iterable[Mapping[str, str]], path: Path) -> list[Source]:
    facts: dict[tuple[Subset, str], tuple[str, str, Scene]] = {}
    frames: dict[tuple[Subset, str], list[str]] = {}
    lines: dict[str, int] = {}
    for line, fields in enumerate(rows, start=2):
        try:
            row = _parse(fields)
            place, is_frame = str(row.path), is_jpeg(row.path.name)
            folder = str(row.path.parent) if is_frame else place
            key = row.split, f"{folder}/{row.tracklet}" if row.tracklet and is_frame else folder
            scene = Scene(row.view, row.camera, row.session, row.altitude, row.distance, row.angle)
            if facts.setdefault(key, fact := (folder, row.identity, scene)) != fact:
                raise ValueError(f"differs from an earlier line of the same tracklet, {key[1]}")
            if (earlier := lines.setdefault(place, line)) != line:
                raise ValueError(f"{fields['path']} is in line {earlier} already")
            if (key[1] in lines) if is_frame else (key in frames):
                raise ValueError("the folder is listed, and frames of it too")
            if is_frame:
                frames.setdefault(key, []).append(row.path.name)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
    numbers = number_identities({identity for _, identity, _ in facts.values()})
    return [
        Source(key[1], folder, numbers[identity], key[0], scene, frames.get(key))
        for key, (folder, identity, scene) in facts.items()
    ]


def _parse(fields: Mapping[str, str]) -> _Row:
    """Raises ValueError naming the field."""
    if None in fields or None in fields.values():
        raise ValueError("fewer or more fields than columns")
    try:
        return _Row.model_validate({name: text for name, text in fields.items() if text})
    except ValidationError as error:
        first = error.errors()[0]
        name, reason = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name} {fields[name]!r}: {reason}") from None

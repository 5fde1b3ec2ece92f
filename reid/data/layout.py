"""Folders and file names of DetReIDX: what a path says about a tracklet, and nothing more.

    train/PID/TRACKLET/*.jpg
    case1_aerial_to_ground/{query,gallery}/PID/TRACKLET/*.jpg      (case2_..., case3_...)

Ground frames:  PID_<5 attributes>_FRAME.jpg
Aerial frames:  PID_DD_MM_YYYY_HH_MM_HEIGHT_DISTANCE_ANGLE_LOCATION_<10 attributes>_
                ACTION_SCENE_SESSION_FRAME.jpg                     (SESSION: 1, 2, S1 or S2)

A name of neither form is an error with its reason: no default stands in for missing metadata.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Subset = Literal["train", "query", "gallery"]
View = Literal["ground", "aerial"]

NUM_CAMERAS = 3
"""Camera ids: 0 ground, 1 aerial in session 1, 2 aerial in session 2."""

PROTOCOL_FOLDERS = {
    "A2G": "case1_aerial_to_ground",
    "G2A": "case2_ground_to_aerial",
    "A2A": "case3_aerial_to_aerial",
}

CAPTURE_POINTS = (
    *((5.8, 10.0, 30.0), (11.5, 20.0, 30.0), (17.3, 30.0, 30.0)),
    *((23.1, 40.0, 30.0), (40.0, 80.0, 30.0), (60.0, 120.0, 30.0)),
    *((15.0, 10.0, 60.0), (30.0, 20.0, 60.0), (45.0, 30.0, 60.0)),
    *((60.0, 40.0, 60.0), (75.0, 80.0, 60.0), (90.0, 120.0, 60.0)),
    *((10.0, 0.0, 90.0), (20.0, 0.0, 90.0), (30.0, 0.0, 90.0)),
    *((40.0, 0.0, 90.0), (80.0, 0.0, 90.0), (120.0, 0.0, 90.0)),
)
"""The 18 aerial capture points (altitude m, horizontal distance m, angle degrees)."""

_GROUND_FIELDS, _AERIAL_FIELDS = 7, 24
_SUFFIXES = (".jpg", ".jpeg")
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_INTEGER = re.compile(r"\d+", re.ASCII)
_SESSIONS = {"1": 1, "S1": 1, "2": 2, "S2": 2}


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One folder of frames of one person, seen by one camera without interruption."""

    identity: int
    """Person folder name as an integer."""
    name: str
    """Tracklet folder name."""
    path: str
    """Folder relative to the dataset root, with forward slashes."""
    subset: Subset
    view: View
    camera: int
    """See NUM_CAMERAS."""
    session: int | None
    """1 or 2; None on the ground."""
    altitude: float
    """Metres; NaN on the ground."""
    distance: float
    """Horizontal, metres; NaN on the ground."""
    angle: float
    """Degrees; NaN on the ground."""
    frames: Sequence[str]
    """File names, by frame number within what precedes it."""
    modified: int = 0
    """Modification time of the folder when indexed, ns since the epoch."""

    @property
    def has_metadata(self) -> bool:
        """Whether altitude, distance and angle are known."""
        return not math.isnan(self.altitude)

    @property
    def capture_point(self) -> int | None:
        """1..18 as in CAPTURE_POINTS (0.1 tolerance); None elsewhere and on the ground."""
        here = (self.altitude, self.distance, self.angle)
        for number, point in enumerate(CAPTURE_POINTS, start=1):
            if all(abs(a - b) < 0.1 for a, b in zip(here, point, strict=True)):
                return number
        return None


class Scene(NamedTuple):
    """What every frame of a tracklet has in common; NaN replaced by None to compare equal."""

    view: View
    altitude: float | None
    distance: float | None
    angle: float | None
    session: int | None

    @property
    def camera(self) -> int:
        """Camera id, see NUM_CAMERAS."""
        return 0 if self.session is None else self.session


class GrammarError(ValueError):
    """A file or folder name of no known form; the message is the reason, without the path."""


def parse_identity(name: str) -> int:
    """Identity of a person folder. Raises GrammarError unless it is a plain integer."""
    if not _INTEGER.fullmatch(name):
        raise GrammarError("person folder is not an integer")
    return int(name)


def why_not_a_frame(name: str) -> str:
    """The reason why a file name does not end in `_NUMBER.jpg`."""
    if not name.lower().endswith(_SUFFIXES):
        return "not a .jpg file"
    return "unknown file name: no frame number of at most 9 digits at its end"


def parse_scene(head: str, suffix: str, identity: int) -> Scene:
    """Read a file name without its frame number: `head` before it, `suffix` from the dot on.

    `identity` is that of its person folder. Raises GrammarError with the reason when the name
    is of neither form.
    """
    if suffix.lower() not in _SUFFIXES:
        raise GrammarError("not a .jpg file")
    fields = [*head.split("_"), "frame"]
    if len(fields) not in (_GROUND_FIELDS, _AERIAL_FIELDS):
        raise GrammarError(
            f"unknown file name: {len(fields)} fields between underscores, expected "
            f"{_GROUND_FIELDS} (ground) or {_AERIAL_FIELDS} (aerial)"
        )
    if "" in fields:
        raise GrammarError("unknown file name: an empty field between underscores")
    if not _INTEGER.fullmatch(fields[0]) or int(fields[0]) != identity:
        raise GrammarError(f"identity {fields[0]!r} of the file is not that of its person folder")
    if len(fields) == _GROUND_FIELDS:
        return Scene("ground", None, None, None, None)
    altitude, distance, angle = (
        _measure(what, text)
        for what, text in zip(("height", "distance", "angle"), fields[6:9], strict=True)
    )
    if fields[-2] not in _SESSIONS:
        raise GrammarError(f"session {fields[-2]!r} is not one of {', '.join(_SESSIONS)}")
    return Scene("aerial", altitude, distance, angle, _SESSIONS[fields[-2]])


def _measure(what: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise GrammarError(f"{what} {text!r} is not a number")
    return float(text)

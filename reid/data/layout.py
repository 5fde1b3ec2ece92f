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

from reid.data.names import Run

Subset = Literal["train", "query", "gallery"]
View = Literal["ground", "aerial"]

CAMERAS = ("ground", "aerial_session1", "aerial_session2")
"""Camera ids are positions in this."""

PROTOCOL_FOLDERS = {
    "A2G": "case1_aerial_to_ground",
    "G2A": "case2_ground_to_aerial",
    "A2A": "case3_aerial_to_aerial",
}

PROTOCOL_VIEWS: dict[str, tuple[View, View] | None] = {
    "A2G": ("aerial", "ground"),
    "G2A": ("ground", "aerial"),
    "A2A": ("aerial", "aerial"),
    "G2G": ("ground", "ground"),
    "ALL": None,
}
"""Whose queries are compared with whose gallery; None: all with all."""

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
    """Frames of one person, seen by one camera without interruption.

    What a layout does not tell is None or NaN.
    """

    identity: int
    name: str
    path: str
    """Unique in its dataset; with forward slashes. In most layouts the folder of the frames."""
    subset: Subset
    view: View | None
    camera: int
    """From 0; how many there are: `reid.data.stored.count_cameras`."""
    session: int | None
    altitude: float
    """Meters."""
    distance: float
    """Horizontal, meters."""
    angle: float
    """Degrees."""
    frames: Sequence[str]
    """File names; where the layout does not order them, by their number."""
    modified: int = 0
    """Modification time of the folder when indexed, ns since the epoch."""
    in_folder: str = ""
    """Folder of the frames relative to the dataset root, when it is not `path`."""
    size: int | None = None
    """Bytes of all frames when indexed; None when files were not looked at."""

    @property
    def folder(self) -> str:
        """Folder of the frames, relative to the dataset root."""
        return self.in_folder or self.path

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return len(self.frames)

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

    view: View | None
    camera: int
    session: int | None = None
    altitude: float | None = None
    distance: float | None = None
    angle: float | None = None


class GrammarError(ValueError):
    """A file or folder name of no known form; the message is the reason, without the path."""


def parse_identity(name: str) -> int:
    """Identity of a person folder. Raises GrammarError unless it is a plain integer."""
    if not _INTEGER.fullmatch(name):
        raise GrammarError("person folder is not an integer")
    return int(name)


def parse_scene(run: Run, identity: int) -> Scene:
    """What file names that differ in their frame number only say.

    `identity` is that of their person folder. Raises GrammarError with the reason when the names
    are of neither form.
    """
    demand_jpeg(run)
    if not run.width or not run.head.endswith("_"):
        raise GrammarError("unknown file name: no frame number of at most 9 digits at its end")
    fields = [*run.head.split("_")[:-1], "frame"]
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
        return Scene("ground", camera=0)
    altitude, distance, angle = (
        _measure(what, text)
        for what, text in zip(("height", "distance", "angle"), fields[6:9], strict=True)
    )
    if fields[-2] not in _SESSIONS:
        raise GrammarError(f"session {fields[-2]!r} is not one of {', '.join(_SESSIONS)}")
    session = _SESSIONS[fields[-2]]
    return Scene("aerial", session, session, altitude, distance, angle)


def demand_jpeg(run: Run) -> None:
    """Raise GrammarError unless these are names of JPEGs."""
    if not is_jpeg(run.suffix):
        raise GrammarError("not a .jpg file")


def is_jpeg(name: str) -> bool:
    """Whether a file name, or its suffix, is that of a JPEG."""
    return name.lower().endswith(_SUFFIXES)


def _measure(what: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise GrammarError(f"{what} {text!r} is not a number")
    return float(text)

"""Folders and file names of DetReIDX.

train/PID/TRACKLET/*.jpg
case1_aerial_to_ground/{query,gallery}/PID/TRACKLET/*.jpg      (case2_..., case3_...)

Ground frames:  PID_<5 attributes>_FRAME.jpg
Aerial frames:  PID_DD_MM_YYYY_HH_MM_HEIGHT_DISTANCE_ANGLE_LOCATION_<10 attributes>_
                ACTION_SCENE_SESSION_FRAME.jpg                     (SESSION: 1, 2, S1 or S2)

Any other name is an error with its reason: no default stands in for missing metadata.
"""

import re
from functools import lru_cache

from reid.data.tracklet import Scene

CAMERAS = ("ground", "aerial_session1", "aerial_session2")
"""Camera ids are positions in this."""

PROTOCOL_FOLDERS = {
    "A2G": "case1_aerial_to_ground",
    "G2A": "case2_ground_to_aerial",
    "A2A": "case3_aerial_to_aerial",
}

_FIELD, _NUMBER = "[^_]+", r"[0-9]+(?:\.[0-9]+)?"
_GROUND = re.compile(rf"(?P<person>[0-9]+)(?:_{_FIELD}){{5}}")
_AERIAL = re.compile(
    rf"(?P<person>[0-9]+)(?:_{_FIELD}){{5}}_(?P<altitude>{_NUMBER})_(?P<distance>{_NUMBER})"
    rf"_(?P<angle>{_NUMBER})(?:_{_FIELD}){{13}}_S?(?P<session>[12])"
)
_FRAME = re.compile(r"[0-9]+\.(?i:jpe?g)")


class UnknownName(ValueError):
    """A file or folder name of no known form; the message is the reason, without the path."""


def parse_person(name: str) -> int:
    """Identity of a person folder. Raises UnknownName unless it is an integer below 2^63."""
    if not re.fullmatch("[0-9]+", name) or int(name) >= 2**63:
        raise UnknownName("person folder is not an integer")
    return int(name)


def parse_name(name: str) -> tuple[int, Scene]:
    """Identity and scene of a frame by its file name. Raises UnknownName with the reason."""
    head, _, frame = name.rpartition("_")
    if not _FRAME.fullmatch(frame):
        raise UnknownName("unknown file name: it does not end in _FRAME.jpg, FRAME a number")
    return _parse_head(head)


@lru_cache(4096)
def _parse_head(head: str) -> tuple[int, Scene]:
    if match := _GROUND.fullmatch(head):
        return int(match["person"]), Scene("ground", camera=0)
    if match := _AERIAL.fullmatch(head):
        measures = (float(match[field]) for field in ("altitude", "distance", "angle"))
        session = int(match["session"])
        return int(match["person"]), Scene("aerial", session, session, *measures)
    raise UnknownName(
        f"unknown file name: {head.count('_') + 2} fields between underscores; expected 7, "
        "PID_<5 attributes>_FRAME (ground), or 24, PID_<date and time>_HEIGHT_DISTANCE_ANGLE_"
        "<13 more>_SESSION_FRAME (aerial) with numbers, session 1, 2, S1 or S2"
    )

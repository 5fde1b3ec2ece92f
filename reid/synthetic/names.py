"""Names of folders and files, as DetReIDX writes them."""

from collections.abc import Iterator

from reid.data.layout import PROTOCOL_FOLDERS
from reid.synthetic.camera import CapturePoint
from reid.synthetic.people import BAGS, BOTTOMS, BUILDS, HAIR, HAIRSTYLES, TOPS, Person

DATES = (("23_10_2024", 9), ("06_11_2024", 15))
"""Day and hour of both sessions."""


def _stature(person: Person) -> int:
    return 0 if person.stature < 1.6 else 1 if person.stature < 1.8 else 2


def ground_name(pid: int, person: Person, frame: int) -> str:
    """PID, five attributes, frame."""
    attributes = (
        int(person.woman),
        _stature(person),
        BUILDS.index(person.build),
        HAIRSTYLES.index(person.hairstyle),
        "F",
    )
    return "_".join([f"{pid:04d}", *map(str, attributes), f"{frame:05d}.jpg"])


def aerial_name(
    pid: int, person: Person, session: int, point: CapturePoint, track: int, scene: int, frame: int
) -> str:
    """PID, day, time, capture point, place, ten attributes, action, scene, session, frame.

    `session` counts from 0; half the tracklets spell it `S1`, the other half `1`.
    """
    outfit = person.outfits[session]
    day, hour = DATES[session]
    attributes = (
        int(person.woman),
        _stature(person),
        BUILDS.index(person.build),
        -1,  # skin is not annotated
        list(HAIR).index(person.hair),
        HAIRSTYLES.index(person.hairstyle),
        int(person.beard),
        TOPS.index(outfit.top.kind),
        BOTTOMS.index(outfit.bottom.kind),
        0 if outfit.bag is None else BAGS.index(outfit.bag.kind),
    )
    spelled = f"S{session + 1}" if track % 2 else f"{session + 1}"
    return "_".join(
        [
            f"{pid:04d}",
            day,
            f"{hour:02d}_{track % 60:02d}",
            f"{point.height:g}_{point.distance:g}_{point.angle}",
            "1",
            *map(str, attributes),
            "0",
            str(scene),
            spelled,
            f"{frame:05d}.jpg",
        ]
    )


def folders(*, train: bool, session: int, aerial: bool) -> Iterator[str]:
    """Where a tracklet lies, relative to the root: one folder, or several protocols' sides."""
    if train:
        yield "train"
        return
    yield f"{PROTOCOL_FOLDERS['A2G']}/{'query' if aerial else 'gallery'}"
    yield f"{PROTOCOL_FOLDERS['G2A']}/{'gallery' if aerial else 'query'}"
    if aerial:
        yield f"{PROTOCOL_FOLDERS['A2A']}/{'gallery' if session else 'query'}"

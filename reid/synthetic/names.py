"""Names of folders and files, as DetReIDX writes them."""

from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.synthetic.camera import CapturePoint
from reid.synthetic.people import BAGS, BOTTOMS, GIRTH, HAIR, HAIRSTYLES, TOPS, Person

DATES = (("23_10_2024", 9), ("06_11_2024", 15))
"""Day and hour of both sessions."""


def ground_name(pid: int, person: Person, frame: int) -> str:
    """PID, five attributes, frame."""
    hairstyle = HAIRSTYLES.index(person.hairstyle)
    return f"{pid:04d}_{_body(person)}_{hairstyle}_F_{frame:05d}.jpg"


def aerial_name(
    pid: int, person: Person, session: int, point: CapturePoint, track: int, scene: int, frame: int
) -> str:
    """PID, day, time, capture point, place, ten attributes, action, scene, session, frame.

    `session` counts from 0; half the tracklets spell it `S1`, the other half `1`.
    """
    outfit, (day, hour) = person.outfits[session], DATES[session]
    attributes = (
        -1,  # skin is not annotated
        list(HAIR).index(person.hair),
        HAIRSTYLES.index(person.hairstyle),
        int(person.beard),
        TOPS.index(outfit.top.kind),
        BOTTOMS.index(outfit.bottom.kind),
        BAGS.index(outfit.bag.kind if outfit.bag else "none"),
    )
    place = f"{point.height:g}_{point.distance:g}_{point.angle}_1"
    annotated = f"{_body(person)}_{'_'.join(map(str, attributes))}_0_{scene}"
    spelled = f"S{session + 1}" if track % 2 else f"{session + 1}"
    time = f"{day}_{hour:02d}_{track % 60:02d}"
    return f"{pid:04d}_{time}_{place}_{annotated}_{spelled}_{frame:05d}.jpg"


def _body(person: Person) -> str:
    stature = 0 if person.stature < 1.6 else 1 if person.stature < 1.8 else 2
    return f"{int(person.woman)}_{stature}_{list(GIRTH).index(person.build)}"


def folders(*, train: bool, session: int, aerial: bool) -> list[str]:
    """Where a tracklet lies, relative to the root: one folder, or a side of each protocol."""
    if train:
        return ["train"]
    sides = {"A2G": ("gallery", "query")[aerial], "G2A": ("query", "gallery")[aerial]}
    if aerial:
        sides["A2A"] = ("query", "gallery")[session]
    return [f"{PROTOCOL_FOLDERS[protocol]}/{side}" for protocol, side in sides.items()]

"""A walking, dressed person as round cones (the hull of two spheres each).

Body axes: x to the right, y forward (the walking direction), z up from the ground. Lengths are in
statures. Proportions follow Winter's anthropometry; angles approximate normal gait.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.synthetic.people import COLORS, GIRTH, HAIR, PATTERNS, SKIN, Garment, Outfit, Person, Rgb

Array = NDArray[np.float64]

Paint = tuple[int, Rgb, Rgb]
"""A position in PAINTS and the two colors that it mixes."""

PAINTS = (*PATTERNS, "head")
"""How a surface mixes its two colors; render.py knows them by their position."""

_SIDES = (1, -1)
_CHEST = np.array([0.0, 0.008, 0.235])  # from the pelvis


class Part(NamedTuple):
    """A round cone; `flat` scales it along y, below `floor` it is cut off."""

    start: Array
    end: Array
    radii: tuple[float, float]
    paint: Paint
    flat: float = 1.0
    floor: float = -1.0


class Body(NamedTuple):
    """n parts as arrays."""

    ends: Array  # (n, 2, 3) centers of the spheres
    radii: Array  # (n, 2)
    flat: Array  # (n,)
    floor: Array  # (n,)
    paint: NDArray[np.int64]  # (n,) positions in PAINTS
    colors: Array  # (n, 2, 3) linear RGB


def figure(person: Person, session: int, *, phase: float) -> Body:
    """The parts of `person` in session 0 or 1 at `phase` (radians) of a stride of two steps.

    The lower foot touches the ground.
    """
    outfit = person.outfits[session]
    legs = [part for side in _SIDES for part in _leg(person, outfit, side, phase)]
    arms = [part for side in _SIDES for part in _arm(person, outfit, side, phase)]
    parts = [*legs, *arms, *_trunk(person, outfit), *_head(person, outfit)]
    if outfit.bag is not None:
        parts += _bag(person, outfit.bag, phase)
    starts, tips, radii, paints, flat, floor = zip(*parts, strict=True)
    ends, radii = np.stack([starts, tips], axis=1), np.array(radii)
    pelvis = -float((ends[..., 2] - radii)[: len(legs)].min())
    ends[..., 2] += pelvis
    colors = (np.array([paint[1:] for paint in paints]) / 255.0) ** 2.2
    mixes = np.array([paint[0] for paint in paints])
    return Body(ends, radii, np.array(flat), np.array(floor) + pelvis, mixes, colors)


def _at(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z])


def _hang(joint: Array, length: float, angle: float, outward: float = 0.0) -> Array:
    """The end of a limb that hangs from `joint`, swung forward by `angle` (radians)."""
    return joint + length * _at(outward, math.sin(angle), -math.cos(angle))


def _plain(color: Rgb) -> Paint:
    return PAINTS.index("plain"), color, color


def _cloth(garment: Garment) -> Paint:
    return PAINTS.index(garment.pattern), COLORS[garment.color], COLORS[garment.second]


def _sleeve(top: Garment) -> Paint:
    """Sleeves show the color of the upper part, without an open front."""
    shown = {"open": top.color, "two-tone": top.second}.get(top.pattern)
    return _cloth(top) if shown is None else _plain(COLORS[shown])


def _leg(person: Person, outfit: Outfit, side: int, phase: float) -> Iterator[Part]:
    girth, stride = GIRTH[person.build], phase + (side < 0) * math.pi
    half = (0.052 if person.woman else 0.048) * math.sqrt(girth)
    swing = 0.03 + 0.42 * math.sin(stride)
    # The knee bends while the leg swings forward.
    bend = 0.08 + 0.85 * max(0.0, math.cos(stride)) ** 2
    hip = _at(side * half, side * half * 0.1 * math.sin(phase), -0.008)
    knee = _hang(hip, 0.245, swing)
    ankle = _hang(knee, 0.240, swing - bend)
    toe = _hang(ankle, 0.1, 0.6 * (swing - bend) - 0.1 + math.pi / 2)
    bottom, skin, bare = _cloth(outfit.bottom), _plain(SKIN[person.skin]), 0.83
    if outfit.bottom.kind == "trousers":
        skin, bare = bottom, 1.0
    yield Part(hip, knee, (0.054 * girth * bare, 0.037 * girth * bare), skin)
    yield Part(knee, ankle, (0.037 * girth * bare, 0.029 * bare), skin)
    yield Part(ankle - _at(0, 0.012, 0), toe, (0.021, 0.018), _cloth(outfit.shoes))
    if outfit.top.kind == "coat" or outfit.bottom.kind != "trousers":
        cloth = _cloth(outfit.top) if outfit.top.kind == "coat" else bottom
        yield Part(hip, hip + 0.7 * (knee - hip), (0.056 * girth, 0.050 * girth), cloth)


def _joints_of_arm(person: Person, side: int, phase: float) -> tuple[Array, Array, Array]:
    """Shoulder, elbow and hand."""
    half = (0.103 if person.woman else 0.117) * math.sqrt(GIRTH[person.build])
    forward = math.sin(phase + (side > 0) * math.pi)
    shoulder = _CHEST + _at(side * half, -side * half * 0.1 * math.sin(phase), 0.040)
    elbow = _hang(shoulder, 0.172, 0.04 + 0.42 * forward, side * 0.14)
    hand = _hang(elbow, 0.18, 0.34 + 0.42 * forward + 0.2 * max(0.0, forward))
    return shoulder, elbow, hand


def _arm(person: Person, outfit: Outfit, side: int, phase: float) -> Iterator[Part]:
    girth, cloth, skin = GIRTH[person.build], _sleeve(outfit.top), _plain(SKIN[person.skin])
    shoulder, elbow, hand = _joints_of_arm(person, side, phase)
    loose = 0.007 if outfit.top.kind in ("jacket", "coat") else 0.004
    upper, lower = (0.028 * girth + loose, 0.023 * girth + loose), 0.022
    yield Part(_CHEST + _at(0, 0, 0.04), shoulder, (0.046, 0.034 * girth), cloth)
    if outfit.top.kind == "t-shirt":
        yield Part(shoulder, shoulder + 0.6 * (elbow - shoulder), upper, cloth)
        cloth, upper, lower = skin, (0.027 * girth, 0.023 * girth), 0.018
    yield Part(shoulder, elbow, upper, cloth)
    yield Part(elbow, elbow + 0.8 * (hand - elbow), (upper[1], lower), cloth)
    yield Part(elbow + 0.85 * (hand - elbow), hand, (0.017, 0.021), skin)


def _trunk(person: Person, outfit: Outfit) -> Iterator[Part]:
    girth, coat, tucked = GIRTH[person.build], outfit.top.kind == "coat", outfit.top.kind == "shirt"
    top, bottom, neck = _cloth(outfit.top), _cloth(outfit.bottom), _at(0, 0.012, 0.30)
    hip = (0.094 if person.woman else 0.087) * girth
    # A shirt is tucked in; anything else hangs over the hips.
    waist = (0.076 if person.woman else 0.084) * girth if tucked else hip
    bust = (0.086 if person.woman else 0.097) * girth
    yield Part(_at(0, 0, 0), _at(0, 0, 0.02), (hip, hip), bottom, flat=0.74)
    yield Part(_at(0, 0, 0.05 if tucked else 0.03), _CHEST, (waist, bust), top, flat=0.72)
    yield Part(_CHEST + _at(0, 0, 0.04), neck, (0.060, 0.036), _sleeve(outfit.top))
    yield Part(neck, neck + _at(0, 0.012, 0.08), (0.030, 0.030), _plain(SKIN[person.skin]))
    if person.woman:
        for side in _SIDES:
            breast = _at(side * 0.038 * girth, 0.050 * girth, 0.223)
            yield Part(breast, breast + _at(0, 0, 0.01), (0.038, 0.034), _sleeve(outfit.top))
    if person.build == "heavy":
        yield Part(_at(0, 0.022, 0.07), _at(0, 0.022, 0.12), (0.095, 0.095), top)
    if coat or outfit.bottom.kind == "skirt":
        hem, radii = -0.24 if coat else -0.20, (0.084 * girth, 0.128 * girth**0.7)
        cloth = top if coat else bottom
        yield Part(_at(0, 0, 0.06), _at(0, 0, hem), radii, cloth, flat=0.95, floor=hem)


def _head(person: Person, outfit: Outfit) -> Iterator[Part]:
    skin, hair, bald = SKIN[person.skin], HAIR[person.hair], person.hairstyle == "bald"
    middle = _at(0, 0.024, 0.402)
    face = PAINTS.index("head"), skin, skin if bald else hair
    chin, crown = middle - _at(0, 0, 0.024), middle + _at(0, 0, 0.018)
    yield Part(chin, crown, (0.042, 0.048), face, flat=1.2)
    nose = middle + _at(0, 0.054, -0.010)
    yield Part(nose, nose - _at(0, 0.004, -0.01), (0.010, 0.007), _plain(skin))
    tufts = {
        "beard": (_at(0, 0.014, -0.028), _at(0, 0.018, -0.024), (0.038, 0.039)),
        "short": (_at(0, -0.014, 0), _at(0, -0.010, 0.018), (0.049, 0.051)),
        "bob": (_at(0, -0.020, -0.034), _at(0, -0.014, 0.018), (0.058, 0.052)),
        "long": (_at(0, -0.040, 0), _at(0, -0.070, -0.17), (0.046, 0.034)),
        "bun": (_at(0, -0.060, 0.045), _at(0, -0.060, 0.055), (0.026, 0.026)),
    }
    styles = {"bald": (), "short": ("short",), "bob": ("short", "bob")}.get(
        person.hairstyle, ("short", "bob", person.hairstyle)
    )
    for name in (*styles, *["beard"] * person.beard):
        start, end, radii = tufts[name]
        yield Part(middle + start, middle + end, radii, _plain(hair))
    if outfit.cap is not None:
        brow, cap = float(middle[2]) + 0.012, _cloth(outfit.cap)
        yield Part(middle, crown, (0.055, 0.053), cap, flat=1.2, floor=brow)
        brim = middle + _at(0, 0.05, -0.020)
        yield Part(brim, brim + _at(0, 0.036, 0), (0.044, 0.042), cap, floor=brow)


def _bag(person: Person, bag: Garment, phase: float) -> Iterator[Part]:
    cloth, depth, strap = _cloth(bag), 0.068 * GIRTH[person.build], (0.012, 0.011)
    if bag.kind == "backpack":
        low = _CHEST - _at(0, depth + 0.053, 0.1)
        yield Part(low, low + _at(0, 0.005, 0.1), (0.080, 0.070), cloth, flat=0.75)
        for side in _SIDES:
            shoulder, front = _at(side * 0.07, 0, 0.317), _at(side * 0.062, depth, 0.225)
            yield Part(shoulder, front, strap, cloth)
            yield Part(front, _at(side * 0.085, 0.03, 0.125), strap, cloth)
        return
    if bag.kind == "handbag":
        middle = _joints_of_arm(person, 1, phase)[2] - _at(0, 0, 0.075)
    else:
        middle = _at(depth + 0.047, -0.02, 0)
        for y in (depth + 0.014, -depth - 0.010):
            yield Part(_at(-0.07, 0, 0.315), _at(0, y, 0.165), strap, cloth)
            yield Part(_at(0, y, 0.165), middle + _at(0, 0, 0.03), strap, cloth)
    yield Part(middle - _at(0, 0.035, 0), middle + _at(0, 0.035, 0), (0.050, 0.050), cloth)

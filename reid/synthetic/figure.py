"""A `Person` in an outfit, posed and dressed: from joints to the parts that are rendered."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.synthetic.body import UP, Body, Builder, Material
from reid.synthetic.people import COLOURS, HAIR, SKIN, Garment, Outfit, Person, Rgb
from reid.synthetic.pose import HEEL_RADIUS, TOE_RADIUS, Arm, Leg, Pose, walk

Array = NDArray[np.float64]


class _Cloth(NamedTuple):
    """Rows of the materials a body is made of."""

    skin: int
    trunk: int
    sleeves: int
    bottom: int
    shoes: int


def figure(person: Person, session: int, *, phase: float, position: Array, heading: float) -> Body:
    """The parts of `person` in session 0 or 1, walking, in world axes.

    `position` (3,) is the point on the ground below the pelvis, `heading` the direction of
    walking in radians, `phase` that of the walk cycle.
    """
    pose = walk(person.stature, woman=person.woman, girth=person.girth, phase=phase)
    builder = Builder()
    outfit = person.outfits[session]
    cloth = _Cloth(
        skin=builder.material(_flat(SKIN[person.skin])),
        trunk=builder.material(_cloth(outfit.top, 0.1)),
        sleeves=builder.material(_cloth(_sleeve(outfit.top), 0.1)),
        bottom=builder.material(_cloth(outfit.bottom, 0.12)),
        shoes=builder.material(_cloth(outfit.shoes, 1.0)),
    )
    _trunk(builder, person, outfit, pose, cloth)
    _drape(builder, person, outfit, pose, cloth)
    for leg in pose.legs:
        _leg(builder, person, outfit, leg, cloth)
    for arm in pose.arms:
        _arm(builder, person, outfit, arm, cloth)
    _head(builder, person, outfit, pose, cloth.skin)
    if outfit.bag is not None:
        _bag(builder, person, outfit.bag, pose)
    return builder.place(position, heading)


def _flat(rgb: Rgb) -> Material:
    return Material("plain", rgb, rgb)


def _cloth(garment: Garment, period: float) -> Material:
    return Material(garment.pattern, COLOURS[garment.color], COLOURS[garment.second], period)


def _sleeve(top: Garment) -> Garment:
    """Sleeves and shoulders: an open front and a color block belong to the trunk."""
    if top.pattern == "open":
        return replace(top, pattern="plain")
    if top.pattern == "two-tone":
        return replace(top, pattern="plain", color=top.second)
    return top


def _trunk(builder: Builder, person: Person, outfit: Outfit, pose: Pose, cloth: _Cloth) -> None:
    s, g = person.stature, person.girth
    hips = s * g * (0.096 if person.woman else 0.088)
    # A shirt is tucked in; anything else hangs over the hips.
    waist = s * g * (0.076 if person.woman else 0.084) if outfit.top.kind == "shirt" else hips
    chest = s * g * (0.086 if person.woman else 0.097)
    loose = 0.004 * s if outfit.top.kind in ("jacket", "coat") else 0.0
    seat = cloth.trunk if outfit.top.kind == "coat" else cloth.bottom
    builder.blob(pose.pelvis, (hips, 0.068 * s * g, 0.075 * s), seat)
    low = pose.pelvis + (0.04 if outfit.top.kind == "shirt" else 0.02) * s * UP
    builder.limb(low, pose.chest, (waist + loose, chest + loose), cloth.trunk, flat=(1.0, 0.70))
    middle = pose.chest + 0.040 * s * UP
    for arm in pose.arms:
        shoulder = arm.shoulder - 0.012 * s * UP
        builder.limb(middle, shoulder, (0.044 * s, 0.030 * s * g + loose), cloth.sleeves, front=UP)
    builder.limb(middle, pose.neck, (0.058 * s, 0.036 * s), cloth.sleeves, flat=(1.3, 0.8))
    neck = pose.neck - 0.02 * s * UP
    builder.limb(neck, pose.head, (0.031 * s * g**0.5, 0.030 * s), cloth.skin)
    if person.woman:
        bust = pose.chest + s * np.array([0.0, 0.038 * g, -0.012])
        builder.blob(bust, (0.076 * s * g, 0.034 * s * g, 0.056 * s), cloth.sleeves)
    if person.build == "heavy":
        belly = pose.pelvis + s * np.array([0.0, 0.022, 0.095])
        builder.blob(belly, (0.100 * s, 0.082 * s, 0.090 * s), cloth.trunk)


def _drape(builder: Builder, person: Person, outfit: Outfit, pose: Pose, cloth: _Cloth) -> None:
    """The skirt of a coat, and a skirt: they swing with the knees and drape over the thighs."""
    s, g = person.stature, person.girth
    if outfit.top.kind == "coat":
        material, hem, width = cloth.trunk, 0.24 * s, 0.118 * s * g**0.7
    elif outfit.bottom.kind == "skirt":
        material, hem, width = cloth.bottom, 0.20 * s, 0.122 * s * g**0.7
    else:
        return
    knees = 0.5 * (pose.legs[0].knee + pose.legs[1].knee)
    waist = pose.pelvis + 0.06 * s * UP
    end = np.array([0.0, 0.5 * float(knees[1]), float(pose.pelvis[2]) - hem])
    length = float(np.linalg.norm(end - waist))
    builder.limb(
        waist,
        end,
        (0.084 * s * g, width),
        material,
        flat=(1.0, 0.90),
        clip=(-0.05 * s, length),
    )
    for leg in pose.legs:
        fold = leg.hip + (hem / (0.245 * s)) * (leg.knee - leg.hip)
        radii = (0.052 * s * g, 0.050 * s * g)
        builder.limb(leg.hip, fold, radii, material, clip=(-1.0, hem))


def _leg(builder: Builder, person: Person, outfit: Outfit, leg: Leg, cloth: _Cloth) -> None:
    s, g = person.stature, person.girth
    if outfit.bottom.kind == "trousers":
        knee = 0.037 * s * g
        builder.limb(leg.hip, leg.knee, (0.054 * s * g, knee), cloth.bottom)
        builder.limb(leg.knee, leg.ankle, (knee, 0.030 * s), cloth.bottom)
    else:
        calf = leg.knee + 0.3 * (leg.ankle - leg.knee)
        builder.limb(leg.hip, leg.knee, (0.045 * s * g, 0.030 * s * g), cloth.skin)
        builder.limb(leg.knee, calf, (0.029 * s * g, 0.031 * s * g), cloth.skin)
        builder.limb(calf, leg.ankle, (0.031 * s * g, 0.019 * s), cloth.skin)
    if outfit.bottom.kind == "shorts":
        hem = leg.hip + 0.82 * (leg.knee - leg.hip)
        length = float(np.linalg.norm(hem - leg.hip))
        radii = (0.054 * s * g, 0.046 * s * g)
        builder.limb(leg.hip, hem, radii, cloth.bottom, clip=(-1.0, length))
    sole = (HEEL_RADIUS * s, TOE_RADIUS * s)
    builder.limb(leg.heel, leg.toe, sole, cloth.shoes, flat=(1.15, 1.0))
    builder.limb(leg.ankle, leg.heel, (0.024 * s, 0.023 * s), cloth.shoes)


def _arm(builder: Builder, person: Person, outfit: Outfit, arm: Arm, cloth: _Cloth) -> None:
    s, g = person.stature, person.girth
    loose = (0.007 if outfit.top.kind in ("jacket", "coat") else 0.004) * s
    upper = ((0.027 if person.woman else 0.030) * s * g + loose, 0.023 * s * g + loose)
    if outfit.top.kind == "t-shirt":
        hem = arm.shoulder + 0.68 * (arm.elbow - arm.shoulder)
        length = float(np.linalg.norm(hem - arm.shoulder))
        builder.limb(arm.shoulder, hem, upper, cloth.sleeves, clip=(-1.0, length))
        builder.limb(arm.shoulder, arm.elbow, (0.028 * s * g, 0.023 * s * g), cloth.skin)
        builder.limb(arm.elbow, arm.wrist, (0.023 * s * g, 0.0165 * s), cloth.skin)
    else:
        builder.limb(arm.shoulder, arm.elbow, upper, cloth.sleeves)
        builder.limb(arm.elbow, arm.wrist, (upper[1], 0.022 * s), cloth.sleeves)
    builder.limb(arm.wrist, arm.hand, (0.017 * s, 0.021 * s), cloth.skin, flat=(0.8, 1.0))


def _head(builder: Builder, person: Person, outfit: Outfit, pose: Pose, skin: int) -> None:
    s = person.stature
    hair_color = HAIR[person.hair]
    bald = person.hairstyle == "bald"
    tone = SKIN[person.skin]
    face = builder.material(Material("head", tone, tone if bald else hair_color))
    hair = builder.material(_flat(hair_color))
    builder.blob(pose.head, (0.045 * s, 0.057 * s, 0.068 * s), face)
    nose = pose.head + s * np.array([0.0, 0.056, -0.008])
    builder.blob(nose, (0.009 * s, 0.012 * s, 0.013 * s), skin)
    if person.beard:
        chin = pose.head + s * np.array([0.0, 0.018, -0.036])
        builder.blob(chin, (0.040 * s, 0.042 * s, 0.036 * s), hair)
    if not bald:
        crown = pose.head + s * np.array([0.0, -0.006, 0.008])
        builder.blob(crown, (0.049 * s, 0.060 * s, 0.067 * s), hair, clip=(0.30, 2.0))
        nape = pose.head + s * np.array([0.0, -0.016, 0.004])
        builder.blob(nape, (0.048 * s, 0.051 * s, 0.060 * s), hair)
    if person.hairstyle in ("bob", "long"):
        sides = pose.head + s * np.array([0.0, -0.014, -0.022])
        builder.blob(sides, (0.058 * s, 0.050 * s, 0.072 * s), hair)
    if person.hairstyle == "long":
        back = pose.head + s * np.array([0.0, -0.038, -0.03])
        tips = pose.chest + s * np.array([0.0, -0.068 * person.girth, -0.01])
        builder.limb(back, tips, (0.036 * s, 0.030 * s), hair, flat=(1.5, 0.8))
    if person.hairstyle == "bun":
        bun = pose.head + s * np.array([0.0, -0.055, 0.05])
        builder.blob(bun, (0.026 * s, 0.026 * s, 0.026 * s), hair)
    if outfit.cap is not None:
        cap = builder.material(_cloth(outfit.cap, 1.0))
        crown = pose.head + s * np.array([0.0, -0.002, 0.012])
        builder.blob(crown, (0.054 * s, 0.066 * s, 0.070 * s), cap, clip=(0.12, 2.0))
        brim = pose.head + s * np.array([0.0, 0.068, 0.024])
        builder.blob(brim, (0.044 * s, 0.050 * s, 0.006 * s), cap)


def _bag(builder: Builder, person: Person, bag: Garment, pose: Pose) -> None:
    s, g = person.stature, person.girth
    cloth = builder.material(_cloth(bag, 1.0))
    if bag.kind == "backpack":
        low = pose.chest + s * np.array([0.0, -0.105 * g**0.7, -0.125])
        high = pose.chest + s * np.array([0.0, -0.105 * g**0.7, 0.01])
        builder.limb(low, high, (0.078 * s, 0.070 * s), cloth, flat=(1.05, 0.72))
        pocket = low + s * np.array([0.0, -0.045, 0.015])
        builder.blob(pocket, (0.056 * s, 0.028 * s, 0.045 * s), cloth)
        for arm, side in zip(pose.arms, (1.0, -1.0), strict=True):
            strap = arm.shoulder - s * np.array([side * 0.040, 0.0, -0.030])
            chest = pose.chest + s * np.array([side * 0.062, 0.064 * g, -0.01])
            waist = pose.chest + s * np.array([side * 0.078 * g, 0.030, -0.11])
            builder.limb(strap, chest, (0.013 * s, 0.012 * s), cloth)
            builder.limb(chest, waist, (0.012 * s, 0.010 * s), cloth)
        return
    if bag.kind == "handbag":
        hand = pose.arms[0].hand
        center = hand - 0.075 * s * UP
        builder.blob(center, (0.026 * s, 0.075 * s, 0.052 * s), cloth)
        builder.limb(hand, center + 0.03 * s * UP, (0.008 * s, 0.010 * s), cloth)
        return
    hip = pose.pelvis + s * np.array([0.112 * g, -0.02, -0.005])
    builder.blob(hip, (0.034 * s, 0.082 * s, 0.062 * s), cloth)
    shoulder = pose.arms[1].shoulder + s * np.array([0.045, 0.0, 0.032])
    front = pose.chest + s * np.array([0.0, 0.086 * g, -0.07])
    back = pose.chest + s * np.array([0.0, -0.080 * g, -0.07])
    for middle in (front, back):
        builder.limb(shoulder, middle, (0.011 * s, 0.011 * s), cloth)
        builder.limb(middle, hip + 0.03 * s * UP, (0.011 * s, 0.011 * s), cloth)

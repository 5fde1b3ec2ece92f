"""A `Person` in an outfit, posed and dressed: from joints to the parts that are rendered."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reid.synthetic.body import UP, Body, Builder, Material
from reid.synthetic.people import COLOURS, HAIR, SKIN, Garment, Outfit, Person, Rgb
from reid.synthetic.pose import HEEL_RADIUS, TOE_RADIUS, Arm, Leg, Pose, walk

Array = NDArray[np.float64]


def figure(person: Person, session: int, *, phase: float, position: Array, heading: float) -> Body:
    """The parts of `person` in session 0 or 1, walking, in world axes.

    `position` (3,) is the point on the ground below the pelvis, `heading` the direction of
    walking in radians, `phase` that of the walk cycle.
    """
    pose = walk(person.stature, woman=person.woman, girth=person.girth, phase=phase)
    builder = Builder()
    outfit = person.outfits[session]
    skin = builder.material(_flat(SKIN[person.skin]))
    top = builder.material(_cloth(outfit.top, 0.1))
    sleeves = builder.material(_cloth(_sleeve(outfit.top), 0.1))
    bottom = builder.material(_cloth(outfit.bottom, 0.12))
    shoes = builder.material(_cloth(outfit.shoes, 1.0))
    _trunk(builder, person, outfit, pose, (top, sleeves), bottom, skin)
    for leg in pose.legs:
        _leg(builder, person, outfit, leg, bottom, skin, shoes)
    for arm in pose.arms:
        _arm(builder, person, outfit, arm, sleeves, skin)
    _head(builder, person, outfit, pose, skin)
    if outfit.bag is not None:
        _bag(builder, person, outfit.bag, pose)
    return builder.place(position, heading)


def _sleeve(top: Garment) -> Garment:
    """Sleeves and shoulders: an open front and a colour block belong to the trunk."""
    if top.pattern == "open":
        return replace(top, pattern="plain")
    if top.pattern == "two-tone":
        return replace(top, pattern="plain", colour=top.second)
    return top


def _flat(rgb: Rgb) -> Material:
    return Material("plain", rgb, rgb)


def _cloth(garment: Garment, period: float) -> Material:
    return Material(garment.pattern, COLOURS[garment.colour], COLOURS[garment.second], period)


def _trunk(
    builder: Builder,
    person: Person,
    outfit: Outfit,
    pose: Pose,
    tops: tuple[int, int],
    bottom: int,
    skin: int,
) -> None:
    top, sleeves = tops
    s, g = person.stature, person.girth
    waist = s * g * (0.074 if person.woman else 0.083)
    chest = s * g * (0.085 if person.woman else 0.096)
    loose = 0.006 if outfit.top.kind in ("jacket", "coat") else 0.0
    hips = s * g * (0.098 if person.woman else 0.090)
    builder.blob(pose.pelvis, (hips, 0.068 * s * g, 0.075 * s), bottom)
    low = pose.pelvis + 0.035 * s * UP
    builder.limb(low, pose.chest, (waist + loose, chest + loose), top, flat=(1.0, 0.70))
    middle = pose.chest + 0.042 * s * UP
    for arm in pose.arms:
        shoulder = arm.shoulder - 0.010 * s * UP
        builder.limb(middle, shoulder, (0.046 * s, 0.034 * s * g + loose), sleeves, front=UP)
    builder.limb(middle, pose.neck, (0.060 * s, 0.036 * s), sleeves, flat=(1.3, 0.8))
    builder.limb(pose.neck - 0.02 * s * UP, pose.head, (0.031 * s * g**0.5, 0.030 * s), skin)
    if person.woman:
        for side in (-0.042, 0.042):
            centre = pose.chest + s * np.array([side, 0.045 * g, -0.005])
            builder.blob(centre, (0.040 * s, 0.028 * s, 0.036 * s), sleeves)
    if person.build == "heavy":
        belly = pose.pelvis + s * np.array([0.0, 0.030, 0.085])
        builder.blob(belly, (0.098 * s, 0.082 * s, 0.085 * s), sleeves)
    hem = None
    if outfit.top.kind == "coat":
        hem = (top, 0.27, 0.60, 0.135)
    elif outfit.bottom.kind == "skirt":
        hem = (bottom, 0.31, 0.58, 0.125)
    if hem is not None:
        cloth, bottom_z, top_z, width = hem
        # A hem swings with the knees.
        sway = 0.25 * (pose.legs[0].knee[1] + pose.legs[1].knee[1])
        start = np.array([0.0, 0.0, pose.pelvis[2] + (top_z - 0.53) * s])
        end = np.array([0.0, sway, pose.pelvis[2] + (bottom_z - 0.53) * s])
        length = float(np.linalg.norm(end - start))
        builder.limb(
            start,
            end,
            (0.080 * s * g, width * s * g**0.7),
            cloth,
            flat=(1.0, 0.95),
            clip=(-0.06 * s, length),
        )


def _leg(
    builder: Builder, person: Person, outfit: Outfit, leg: Leg, bottom: int, skin: int, shoes: int
) -> None:
    s, g = person.stature, person.girth
    cloth = outfit.bottom.kind
    thigh = 0.245 * s
    bare = {"trousers": None, "shorts": (0.8 * thigh, skin), "skirt": (0.0, skin)}[cloth]
    loose = 0.0 if cloth == "skirt" else 0.006 * s
    knee = 0.031 * s * g + (0.009 * s if cloth == "shorts" else loose)
    builder.limb(leg.hip, leg.knee, (0.049 * s * g + loose, knee), bottom, beyond=bare)
    if cloth == "trousers":
        builder.limb(leg.knee, leg.ankle, (0.031 * s * g + loose, 0.030 * s), bottom)
    else:
        calf = leg.knee + 0.3 * (leg.ankle - leg.knee)
        builder.limb(leg.knee, calf, (0.029 * s * g, 0.031 * s * g), skin)
        builder.limb(calf, leg.ankle, (0.031 * s * g, 0.019 * s), skin)
    builder.limb(leg.heel, leg.toe, (HEEL_RADIUS * s, TOE_RADIUS * s), shoes, flat=(1.15, 1.0))
    builder.limb(leg.ankle, leg.heel, (0.024 * s, 0.023 * s), shoes)


def _arm(builder: Builder, person: Person, outfit: Outfit, arm: Arm, top: int, skin: int) -> None:
    s, g = person.stature, person.girth
    short = outfit.top.kind == "t-shirt"
    loose = (0.008 if outfit.top.kind in ("jacket", "coat") else 0.004) * s
    sleeve = (0.115 * s, skin) if short else None
    upper = (0.031 * s * g + loose, 0.024 * s * g + loose)
    builder.limb(arm.shoulder, arm.elbow, upper, top, beyond=sleeve)
    lower = (0.0235 * s * g, 0.0165 * s) if short else (0.0235 * s * g + loose, 0.022 * s)
    builder.limb(arm.elbow, arm.wrist, lower, skin if short else top)
    builder.limb(arm.wrist, arm.hand, (0.017 * s, 0.021 * s), skin, flat=(0.8, 1.0))


def _head(builder: Builder, person: Person, outfit: Outfit, pose: Pose, skin: int) -> None:
    s = person.stature
    hair_colour = HAIR[person.hair]
    bald = person.hairstyle == "bald"
    tone = SKIN[person.skin]
    face = builder.material(Material("head", tone, tone if bald else hair_colour))
    hair = builder.material(_flat(hair_colour))
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
        centre = hand - 0.075 * s * UP
        builder.blob(centre, (0.026 * s, 0.075 * s, 0.052 * s), cloth)
        builder.limb(hand, centre + 0.03 * s * UP, (0.008 * s, 0.010 * s), cloth)
        return
    hip = pose.pelvis + s * np.array([0.112 * g, -0.02, -0.005])
    builder.blob(hip, (0.034 * s, 0.082 * s, 0.062 * s), cloth)
    shoulder = pose.arms[1].shoulder + s * np.array([0.045, 0.0, 0.032])
    front = pose.chest + s * np.array([0.0, 0.076 * g, -0.07])
    back = pose.chest + s * np.array([0.0, -0.072 * g, -0.07])
    for middle in (front, back):
        builder.limb(shoulder, middle, (0.011 * s, 0.011 * s), cloth)
        builder.limb(middle, hip + 0.03 * s * UP, (0.011 * s, 0.011 * s), cloth)

"""The walk cycle: joints of a walking person, in body axes (x right, y forward, z up; meters).

Segment lengths are shares of stature after Winter's anthropometry; angles are smooth
approximations of normal gait.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STRIDES_PER_SECOND = 0.9
SPEED = 1.3
"""Walking speed, meters per second."""


class Leg(NamedTuple):
    """Joints of one leg."""

    hip: Array
    knee: Array
    ankle: Array
    heel: Array
    toe: Array


class Arm(NamedTuple):
    """Joints of one arm."""

    shoulder: Array
    elbow: Array
    wrist: Array
    hand: Array


class Pose(NamedTuple):
    """Joints of a body that stands on z = 0; legs and arms are (right, left)."""

    pelvis: Array
    chest: Array
    neck: Array
    head: Array
    legs: tuple[Leg, Leg]
    arms: tuple[Arm, Arm]


def _down(angle: float, outward: float = 0.0) -> Array:
    """Unit vector straight down, swung forward by `angle` and sideways by `outward`."""
    return np.array(
        [
            math.sin(outward),
            math.sin(angle) * math.cos(outward),
            -math.cos(angle) * math.cos(outward),
        ]
    )


def _leg(hip: Array, phase: float, stature: float) -> Leg:
    swing = 0.03 + 0.42 * math.sin(phase)
    # The knee bends while the leg swings forward, that is while `swing` grows.
    bend = 0.08 + 0.85 * max(0.0, math.cos(phase)) ** 2
    knee = hip + 0.245 * stature * _down(swing)
    ankle = knee + 0.246 * stature * _down(swing - bend)
    pitch = 0.6 * (swing - bend) + 0.06
    ahead = np.array([0.0, math.cos(pitch), math.sin(pitch)])
    under = np.array([0.0, math.sin(pitch), -math.cos(pitch)])
    heel = ankle + stature * (-0.022 * ahead + 0.018 * under)
    toe = ankle + stature * (0.098 * ahead + 0.023 * under)
    return Leg(hip, knee, ankle, heel, toe)


def _arm(shoulder: Array, side: float, phase: float, stature: float) -> Arm:
    swing = 0.04 + 0.42 * math.sin(phase)
    elbow = shoulder + 0.172 * stature * _down(swing, side * 0.14)
    forearm = _down(swing + 0.3 + 0.2 * max(0.0, math.sin(phase)), side * 0.02)
    wrist = elbow + 0.150 * stature * forearm
    return Arm(shoulder, elbow, wrist, wrist + 0.04 * stature * forearm)


HEEL_RADIUS = 0.021
TOE_RADIUS = 0.016
"""Of the foot, shares of stature; the sole is where they touch the ground."""


def walk(stature: float, *, woman: bool, girth: float, phase: float) -> Pose:
    """The pose at `phase` (radians; a stride, two steps, is 2 pi).

    `girth` widens hips and shoulders. The lower foot touches the ground.
    """
    hip_half = stature * (0.052 if woman else 0.048) * math.sqrt(girth)
    shoulder_half = stature * (0.103 if woman else 0.117) * math.sqrt(girth)
    turn = 0.10 * math.sin(phase)
    pelvis = np.array([0.0, 0.0, 0.53 * stature])
    # Shoulders turn against the hips; the trunk leans forward a little.
    chest = np.array([0.0, 0.008, 0.765 * stature])
    neck = np.array([0.0, 0.012, 0.835 * stature])
    head = np.array([0.0, 0.024, 0.932 * stature])
    legs, arms = [], []
    for side, offset in ((1.0, 0.0), (-1.0, math.pi)):
        hip = pelvis + np.array([side * hip_half, side * hip_half * turn, -0.008 * stature])
        legs.append(_leg(hip, phase + offset, stature))
        shoulder = chest + np.array(
            [side * shoulder_half, -side * shoulder_half * turn, 0.040 * stature]
        )
        arms.append(_arm(shoulder, side, phase + offset + math.pi, stature))
    lowest = min(
        min(leg.heel[2] - HEEL_RADIUS * stature, leg.toe[2] - TOE_RADIUS * stature) for leg in legs
    )
    rise = np.array([0.0, 0.0, -lowest])
    raised_legs = [Leg(*(joint + rise for joint in leg)) for leg in legs]
    raised_arms = [Arm(*(joint + rise for joint in arm)) for arm in arms]
    return Pose(
        pelvis + rise,
        chest + rise,
        neck + rise,
        head + rise,
        (raised_legs[0], raised_legs[1]),
        (raised_arms[0], raised_arms[1]),
    )

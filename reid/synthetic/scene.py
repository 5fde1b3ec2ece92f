"""One tracklet: a person walks through a place while a camera watches, frame by frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.synthetic.camera import CapturePoint, drone, ground
from reid.synthetic.figure import figure
from reid.synthetic.people import Person
from reid.synthetic.photo import Exposure, photograph
from reid.synthetic.pose import SPEED, STRIDES_PER_SECOND
from reid.synthetic.shade import GROUNDS, Light

FRAME_INTERVAL = 0.25
"""Seconds between the frames of a tracklet."""


@dataclass(frozen=True)
class Take:
    """What is constant over a tracklet. Angles in radians, lengths in meters."""

    point: CapturePoint | None  # None is a ground camera
    azimuth: float  # of the line of sight
    heading: float  # of the walk
    phase: float  # of the walk cycle in the first frame
    distance: float  # of the ground camera
    eye: float  # height of the ground camera
    light: Light
    ground: int  # index into shade.GROUNDS
    texture: int  # seed of ground and backdrop
    exposure: Exposure


def draw_take(rng: np.random.Generator, *, session: int, point: CapturePoint | None) -> Take:
    """A random take in session 0 (clear, sun from the south-east) or 1 (hazy, lower sun)."""
    altitude, azimuth = ((0.95, -0.9), (0.6, -2.3))[session]
    altitude += float(rng.normal(0.0, 0.06))
    azimuth += float(rng.normal(0.0, 0.25))
    sun = np.array(
        [
            math.cos(altitude) * math.cos(azimuth),
            math.cos(altitude) * math.sin(azimuth),
            math.sin(altitude),
        ]
    )
    strength = (1.25, 0.75)[session] * float(rng.uniform(0.85, 1.1))
    warm = ((1.0, 0.95, 0.86), (1.0, 0.90, 0.76))[session]
    sky = ((0.36, 0.41, 0.50), (0.46, 0.48, 0.52))[session]
    light = Light(sun, strength * np.array(warm), np.array(sky))
    far = 0.0 if point is None else min(1.0, point.slant / 120.0)
    exposure = Exposure(
        defocus=float(rng.uniform(0.35, 0.6)) if point is None else float(rng.uniform(0.4, 0.7)),
        shake=float(rng.uniform(0.1, 0.8)),
        noise=float(rng.uniform(0.0006, 0.002)) * (1.0 + far),
        quality=int(rng.integers(80, 95)),
        gain=float(rng.uniform(0.9, 1.1)) * (0.9, 1.1)[session],
    )
    return Take(
        point=point,
        azimuth=float(rng.uniform(0.0, 2.0 * math.pi)),
        heading=float(rng.uniform(0.0, 2.0 * math.pi)),
        phase=float(rng.uniform(0.0, 2.0 * math.pi)),
        distance=float(rng.uniform(5.0, 7.5)),
        eye=float(rng.uniform(1.2, 1.8)),
        light=light,
        ground=int(rng.integers(len(GROUNDS))),
        texture=int(rng.integers(1 << 30)),
        exposure=exposure,
    )


def film(
    person: Person, session: int, take: Take, frames: int, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """The crops (H, W, 3) of `frames` consecutive frames, sRGB.

    The person walks past the point the capture point is measured from; the aim wavers.
    """
    ahead = np.array([math.cos(take.heading), math.sin(take.heading), 0.0])
    for number in range(frames):
        time = number * FRAME_INTERVAL
        position = (time - 0.5 * (frames - 1) * FRAME_INTERVAL) * SPEED * ahead
        phase = take.phase + 2.0 * math.pi * STRIDES_PER_SECOND * time
        body = figure(person, session, phase=phase, position=position, heading=take.heading)
        aim = np.array([*rng.normal(0.0, 0.3, size=2), 0.9])
        if take.point is None:
            camera = ground(distance=take.distance, azimuth=take.azimuth, height=take.eye, aim=aim)
        else:
            camera = drone(take.point, azimuth=take.azimuth, aim=aim)
        yield photograph(body, camera, take.light, take.ground, take.texture, take.exposure, rng)

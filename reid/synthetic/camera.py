"""Where pictures are taken from: a pinhole on the ground or at one of the 18 capture points."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.data import tracklet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CapturePoint:
    """A position of the drone relative to a person, as DetReIDX names its files."""

    height: float  # meters above the ground
    distance: float  # meters along the ground
    angle: int  # degrees below the horizon, nominal

    @property
    def slant(self) -> float:
        """Distance from the camera to the feet, meters."""
        return math.hypot(self.height, self.distance)


CAPTURE_POINTS = tuple(
    CapturePoint(height, distance, round(angle))
    for height, distance, angle in tracklet.CAPTURE_POINTS
)

DRONE_FOCAL = 1280.0
"""Focal length in pixels: 1920 x 1080 video of a 24 mm-equivalent lens (24 / 36 x 1920)."""

GROUND_FOCAL = 640.0
"""The same lens on a ground camera that records 960 x 540."""


@dataclass(frozen=True)
class Camera:
    """A pinhole without distortion. Image axes: u to the right, v down, principal point 0, 0."""

    eye: Array  # (3,) world (z up, ground at z = 0)
    rotation: Array  # (3, 3) rows: right, down, forward in world axes
    focal: float  # pixels

    def rays(self, left: float, top: float, width: int, height: int) -> Array:
        """Directions (height, width, 3) through pixel centers, 1 along the optical axis."""
        u = (left + np.arange(width) + 0.5) / self.focal
        v = (top + np.arange(height) + 0.5) / self.focal
        right, down, forward = self.rotation
        directions: Array = u[:, None] * right + v[:, None, None] * down + forward
        return directions


def look_at(eye: Array, aim: Array, *, azimuth: float, focal: float) -> Camera:
    """A camera at `eye` that has `aim` in its center; `azimuth` is up where it looks down."""
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    steep = math.hypot(forward[0], forward[1]) < 0.1
    up = np.array([math.cos(azimuth), math.sin(azimuth), 0.0] if steep else [0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return Camera(eye, np.stack([right, np.cross(forward, right), forward]), focal)

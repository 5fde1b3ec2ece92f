"""Where pictures are taken from: pinhole cameras on the ground and at the 18 capture points."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.data import layout

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
    for height, distance, angle in layout.CAPTURE_POINTS
)

DRONE_FOCAL = 1280.0
"""Focal length in pixels: 1920 x 1080 video of a 24 mm-equivalent lens (24 / 36 x 1920)."""

GROUND_FOCAL = 640.0
"""The same lens on a ground camera that records 960 x 540."""


@dataclass(frozen=True)
class Camera:
    """A pinhole without distortion. Image axes: u to the right, v down, principal point 0, 0."""

    position: Array  # (3,) meters, world (z up, ground at z = 0)
    rotation: Array  # (3, 3) rows: right, down, forward in world axes
    focal: float  # pixels

    def project(self, points: Array) -> Array:
        """World points (n, 3) to pixel coordinates (n, 2). Points must lie before the camera."""
        local = (points - self.position) @ self.rotation.T
        pixels: Array = self.focal * local[:, :2] / local[:, 2:]
        return pixels


def look_at(position: Array, target: Array, *, focal: float, up: Array) -> Camera:
    """A camera at `position` with `target` in its center and `up` upwards in the image.

    `up` must not be parallel to the line of sight: looking straight down, it is the heading.
    """
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return Camera(position, np.stack([right, np.cross(forward, right), forward]), focal)


def drone(point: CapturePoint, *, azimuth: float, aim: Array) -> Camera:
    """The drone at a capture point from the origin, at `azimuth` radians, looking at `aim` (3,)."""
    ahead = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    position = -point.distance * ahead + np.array([0.0, 0.0, point.height])
    # Seen from straight above, "up" in the picture is where the drone heads.
    up = ahead if point.distance == 0 else np.array([0.0, 0.0, 1.0])
    return look_at(position, aim, focal=DRONE_FOCAL, up=up)


def ground(*, distance: float, azimuth: float, height: float, aim: Array) -> Camera:
    """A hand-held camera `height` meters above the ground, `distance` meters from the origin."""
    ahead = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    position = -distance * ahead + np.array([0.0, 0.0, height])
    return look_at(position, aim, focal=GROUND_FOCAL, up=np.array([0.0, 0.0, 1.0]))

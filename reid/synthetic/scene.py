"""One tracklet: a person walks through a place while a camera takes crops, frame by frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from reid.data import tracklet
from reid.synthetic.body import Body, figure
from reid.synthetic.people import Person
from reid.synthetic.render import Camera, Light, boxes, draw, look_at

Array = NDArray[np.float64]


class CapturePoint(NamedTuple):
    """A position of the drone relative to a person, as DetReIDX names its files."""

    height: float  # meters above the ground
    distance: float  # meters along the ground
    angle: float  # degrees below the horizon, nominal

    @property
    def slant(self) -> float:
        """Distance from the camera to the feet, meters."""
        return math.hypot(self.height, self.distance)


CAPTURE_POINTS = tuple(CapturePoint(*point) for point in tracklet.CAPTURE_POINTS)

DRONE_FOCAL = 1280.0
"""Focal length in pixels: 1920 x 1080 video of a 24 mm-equivalent lens (24 / 36 x 1920)."""

GROUND_FOCAL = 640.0
"""The same lens on a ground camera that records 960 x 540."""

FRAME_INTERVAL = 0.25
"""Seconds between the frames of a tracklet."""
SPEED, STRIDES_PER_SECOND = 1.3, 0.9
"""Of the walk; meters per second, and strides of two steps."""
ROOM = 0.06
"""Most that a box leaves around the person, as a share of its side."""
BACKDROP = 24.0
"""Meters from the person at which the ground ends in hedges and walls."""

GROUNDS = (
    ((0.085, 0.145, 0.04), 0.0),  # grass
    ((0.088, 0.088, 0.094), 0.0),  # asphalt
    ((0.30, 0.26, 0.22), 0.5),  # paving
    ((0.27, 0.19, 0.115), 0.0),  # soil
    ((0.36, 0.36, 0.35), 3.0),  # concrete
)
"""Linear RGB and the distance of joints in meters (0: none)."""

_WHITE = np.random.default_rng(0).standard_normal((256, 256))
_LAYERS = [gaussian_filter(_WHITE, sigma, mode="wrap") for sigma in (0.6, 2.0, 8.0)]
_NOISE = np.asarray(sum(layer / layer.std() for layer in _LAYERS)) / math.sqrt(len(_LAYERS))
"""Noise (256, 256) that repeats itself, of deviation 1, with details of all sizes."""


@dataclass(frozen=True)
class Take:
    """What is constant over a tracklet. Azimuths count from the walking direction, radians."""

    point: CapturePoint | None  # None is a ground camera
    azimuth: float  # of the line of sight
    phase: float  # of the walk cycle in the first frame
    distance: float  # of a ground camera, meters
    eye: float  # height of a ground camera, meters
    light: Light
    ground: int  # position in GROUNDS
    texture: Array  # (2,) where the ground lies, meters
    blur: float  # sigma of the lens, pixels
    shake: float  # standard deviation of the motion within a frame, pixels
    noise: float  # standard deviation of read noise, linear full scale
    gain: float  # exposure
    quality: int  # of the JPEG


def draw_take(rng: Generator, *, session: int, point: CapturePoint | None) -> Take:
    """A random take in session 0 (clear, high sun) or 1 (hazy, lower sun)."""
    altitude = (0.95, 0.6)[session] + float(rng.normal(0.0, 0.06))
    azimuth = rng.uniform(-math.pi, math.pi)
    across = math.cos(altitude)
    sun = (across * math.sin(azimuth), across * math.cos(azimuth), math.sin(altitude))
    warm = ((1.0, 0.95, 0.86), (1.0, 0.90, 0.76))[session]
    sky = ((0.36, 0.41, 0.50), (0.46, 0.48, 0.52))[session]
    strength = (1.25, 0.75)[session] * rng.uniform(0.85, 1.1)
    far = 0.0 if point is None else min(1.0, point.slant / 120.0)
    return Take(
        point=point,
        azimuth=rng.uniform(-math.pi, math.pi),
        phase=rng.uniform(-math.pi, math.pi),
        distance=rng.uniform(5.0, 7.5),
        eye=rng.uniform(1.2, 1.8),
        light=Light(np.array(sun), strength * np.array(warm), np.array(sky)),
        ground=int(rng.integers(len(GROUNDS))),
        texture=rng.uniform(0.0, 100.0, size=2),
        blur=rng.uniform(0.4, 0.65),
        shake=rng.uniform(0.1, 0.8),
        noise=rng.uniform(0.0006, 0.002) * (1.0 + far),
        gain=rng.uniform(0.9, 1.1) * (0.9, 1.1)[session],
        quality=int(rng.integers(80, 95)),
    )


def film(
    person: Person, session: int, take: Take, frames: int, rng: Generator
) -> Iterator[NDArray[np.uint8]]:
    """The crops (H, W, 3) of `frames` consecutive frames, sRGB.

    The person walks along y past the origin, from where the camera's place is measured.
    """
    height, distance, focal = take.eye, take.distance, GROUND_FOCAL
    if take.point is not None:
        height, distance, focal = take.point.height, take.point.distance, DRONE_FOCAL
    eye = np.array([-distance * math.sin(take.azimuth), -distance * math.cos(take.azimuth), height])
    for number in range(frames):
        time = (number - 0.5 * (frames - 1)) * FRAME_INTERVAL
        walked = np.array([0.0, SPEED * time, 0.0])
        aim = np.array([*rng.normal(0.0, 0.3, size=2), 0.9])
        camera = look_at(eye, aim, azimuth=math.pi / 2 - take.azimuth, focal=focal)
        phase = take.phase + 2.0 * math.pi * STRIDES_PER_SECOND * time
        body = figure(person, session, phase=phase)
        yield photograph(body, person.stature, walked, camera, take, rng)


def photograph(
    body: Body, stature: float, position: Array, camera: Camera, take: Take, rng: Generator
) -> NDArray[np.uint8]:
    """The crop (H, W, 3), sRGB, that a detector would cut out of a frame."""
    # Seen from the person: body axes, lengths in statures.
    near = camera._replace(eye=(camera.eye - position) / stature)
    around = boxes(body, near)
    box = np.concatenate([around[:, :2].min(axis=0), around[:, 2:].max(axis=0)])
    size = float((box[2:] - box[:2]).max())
    samples = 2 if size > 110 else 3 if size > 50 else 4 if size > 25 else 6
    # Detectors leave some room, and never the same.
    margin = math.ceil(ROOM * size) + 2
    left, top = (math.floor(value) - margin for value in box[:2])
    width, height = math.ceil(box[2]) + margin - left, math.ceil(box[3]) + margin - top
    image = draw(body, near, take.light, (left, top, width, height), samples)
    seen = image[..., 3] > 0.0
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    low = np.array([columns[0], rows[0]]) / samples
    high = np.array([columns[-1], rows[-1]]) / samples + 1.0 / samples
    room = rng.uniform(0.0, ROOM, size=(2, 2)) * (high - low) + rng.uniform(0.0, 0.6, size=(2, 2))
    x0, y0 = np.floor(low - room[0]).astype(int)
    x1, y1 = np.ceil(high + room[1]).astype(int)
    cut = image[y0 * samples : y1 * samples, x0 * samples : x1 * samples]
    pixels = cut.reshape(y1 - y0, samples, x1 - x0, samples, 4).mean(axis=(1, 3))
    rays = camera.rays(left + x0, top + y0, x1 - x0, y1 - y0)
    scenery = background(rays, camera.eye, position, stature, take)
    return expose(pixels[..., :3] + (1.0 - pixels[..., 3:]) * scenery, take, rng)


def background(rays: Array, eye: Array, position: Array, stature: float, take: Take) -> Array:
    """Linear RGB (H, W, 3) of ground, the person's shadow, and where the ground ends."""
    color, joints = GROUNDS[take.ground]
    light = take.light
    far = 2.0 * BACKDROP if take.point is None else 1000.0
    falling = np.minimum(rays[..., 2], -eye[2] / far)
    x, y = (eye[axis] - rays[..., axis] * eye[2] / falling for axis in (0, 1))
    level = 1.0 + 0.10 * _at(x, y, take.texture, 4.0) + 0.10 * _at(x, y, take.texture, 24.0)
    if joints:
        gaps = ((x % joints) < 0.03) | ((y % joints) < 0.03)
        level = np.where(gaps, 0.6 * level, level)
    # The shadow of a capsule as tall as the person, with soft edges.
    sun = light.sun[:2] / math.hypot(light.sun[0], light.sun[1])
    length = stature * math.hypot(light.sun[0], light.sun[1]) / light.sun[2]
    dx, dy = x - position[0], y - position[1]
    along = np.clip(-(dx * sun[0] + dy * sun[1]), 0.0, length)
    distance = np.hypot(dx + along * sun[0], dy + along * sun[1])
    lit = np.clip((distance - 0.10 * stature) / (0.06 * stature), 0.0, 1.0)[..., None]
    ground = level[..., None] * color * (light.sky_color + lit * light.sun_color * light.sun[2])
    if take.point is not None:
        return np.asarray(ground)
    # A hedge before walls, on a cylinder around the place.
    height = eye[2] + BACKDROP * rays[..., 2] / np.hypot(rays[..., 0], rays[..., 1])
    along = BACKDROP * np.arctan2(rays[..., 0], rays[..., 1])
    leaves = np.clip(1.0 + 0.3 * _at(along, height, take.texture, 8.0), 0.3, 2.0)[..., None]
    upright = np.where(height[..., None] < 2.0 + 0.3 * leaves, leaves * (0.06, 0.11, 0.04), 0.25)
    upright = upright * (light.sky_color + 0.5 * light.sun_color)
    return np.where((np.hypot(x, y) > BACKDROP)[..., None], upright, ground)


def _at(x: Array, y: Array, texture: Array, scale: float) -> Array:
    """Noise of deviation 1 at places in meters, with `scale` values a meter."""
    i, j = (
        (scale * (values + offset)).astype(np.int64) & 255
        for values, offset in zip((x, y), texture, strict=True)
    )
    return np.asarray(_NOISE[i, j])


def expose(light: Array, take: Take, rng: Generator) -> NDArray[np.uint8]:
    """What the sensor makes of linear RGB (H, W, 3): blur, noise, tone curve; sRGB."""
    # A shake smears evenly along a line: per axis, a variance of length^2 / 12.
    shake = rng.normal(0.0, take.shake, size=2)
    sigma = np.sqrt(take.blur**2 + shake**2 / 12.0)
    # Stray light in the lens lifts the blacks a little.
    pixels = (gaussian_filter(light, (*sigma, 0.0), mode="nearest") + 0.006) * take.gain
    # Shot noise grows with the root of the signal; read noise does not.
    pixels += np.sqrt(take.noise**2 + 0.00008 * pixels) * rng.standard_normal(pixels.shape)
    # A soft shoulder instead of clipped highlights, then the sRGB curve.
    pixels = np.maximum(pixels, 0.0)
    toned = np.where(pixels < 0.7, pixels, 0.7 + 0.3 * np.tanh((pixels - 0.7) / 0.3))
    return np.rint(255.0 * toned ** (1 / 2.2)).astype(np.uint8)

"""From a person before a camera to the bytes of a JPEG crop, as a detector would cut it."""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reid.synthetic.body import Body
from reid.synthetic.camera import Camera
from reid.synthetic.cast import Window, cast, crop
from reid.synthetic.sensor import expose, kernel
from reid.synthetic.shade import Light, shade

Array = NDArray[np.float64]


ROOM = 0.06
"""Most that a box leaves around the person, as a share of its side."""


@dataclass(frozen=True)
class Exposure:
    """What a camera does to the picture of a tracklet."""

    defocus: float  # sigma of the point spread, pixels
    shake: float  # standard deviation of the motion of a frame, pixels
    noise: float  # standard deviation of read noise, linear full scale
    quality: int  # of the JPEG
    gain: float  # exposure


def extent(body: Body, camera: Camera) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels of a box that contains the projected body."""
    centers, radii = body.spheres()
    local = (centers - camera.position) @ camera.rotation.T
    depth = local[:, 2]
    pixels = camera.focal * local[:, :2] / depth[:, None]
    spread = camera.focal * radii / (depth - radii)
    reach = spread[:, None] * (1.0 + np.abs(local[:, :2]) / depth[:, None])
    low, high = (pixels - reach).min(axis=0), (pixels + reach).max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def samples_per_pixel(pixels: float) -> int:
    """Rays per pixel and axis: more for a small figure, whose parts are thinner than a pixel."""
    return 2 if pixels > 110 else 3 if pixels > 50 else 4 if pixels > 25 else 6


def photograph(
    body: Body,
    camera: Camera,
    light: Light,
    ground: int,
    texture: int,
    exposure: Exposure,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """The crop (H, W, 3) of the person, sRGB: blur, noise and a detector's imprecise box."""
    # A shake smears the picture evenly along a line: per axis, a variance of length^2 / 12.
    shake = rng.normal(0.0, exposure.shake, size=2)
    left, top, right, bottom = extent(body, camera)
    samples = samples_per_pixel(max(right - left, bottom - top))
    blur_x, blur_y = np.sqrt(exposure.defocus**2 + shake**2 / 12.0)
    kernel_x, kernel_y = kernel(samples, float(blur_x)), kernel(samples, float(blur_y))
    reach_x, reach_y = (len(k) // samples // 2 for k in (kernel_x, kernel_y))
    margin = max(reach_x, reach_y) + 2 + math.ceil(ROOM * max(right - left, bottom - top))
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    x1, y1 = math.ceil(right) + margin, math.ceil(bottom) + margin
    window = Window(x0, y0, x1 - x0, y1 - y0, samples)
    hits = cast(body, camera, window)
    rows, columns = (np.flatnonzero((hits.part >= 0).any(axis=axis)) for axis in (1, 0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / samples
    width, height = box[2] - box[0], box[3] - box[1]
    # Detectors leave some room, and never the same.
    room = rng.uniform(0.0, ROOM, size=4) * np.array([width, height, width, height])
    room += rng.uniform(0.0, 0.6, size=4)
    cut_left, cut_top = np.floor(box[:2] - room[:2]).astype(int).tolist()
    cut_right, cut_bottom = np.ceil(box[2:] + room[2:]).astype(int).tolist()
    hits, window = crop(
        hits,
        window,
        left=cut_left - reach_x,
        top=cut_top - reach_y,
        right=cut_right + reach_x,
        bottom=cut_bottom + reach_y,
    )
    region = shade(body, camera, window, hits, light, ground, texture)
    # Stray light in the lens lifts the blacks a little.
    pixels = (expose(region, kernel_y, kernel_x, samples) + 0.006) * exposure.gain
    # Shot noise grows with the root of the signal; read noise does not.
    scale = np.sqrt(exposure.noise**2 + 0.00008 * np.maximum(pixels, 0.0))
    pixels = np.clip(pixels + scale * rng.standard_normal(pixels.shape), 0.0, None)
    # A soft shoulder instead of clipped highlights, then the sRGB curve.
    toned = np.where(pixels < 0.7, pixels, 0.7 + 0.3 * np.tanh((pixels - 0.7) / 0.3))
    return np.asarray(np.rint(255.0 * toned ** (1 / 2.2)), dtype=np.uint8)


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """The crop as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

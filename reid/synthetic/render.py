"""Rays of a pinhole against bodies: the color of a person at each sample of a part of the sensor.

The numba kernels use neither fast-math nor threads, so that equal input gives equal bytes. They
call only kernels of this module: a cached kernel is not compiled again when another file changes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.compiled import njit
from reid.synthetic.body import Body

Array = NDArray[np.float64]


class Camera(NamedTuple):
    """A pinhole without distortion. Image axes: u to the right, v down, principal point 0, 0."""

    eye: Array  # (3,) world (z up, ground at z = 0)
    rotation: Array  # (3, 3) rows: right, down, forward in world axes
    focal: float  # pixels

    def rays(self, left: float, top: float, width: int, height: int) -> Array:
        """Directions (height, width, 3) through pixel centers, 1 along the optical axis."""
        u = (left + np.arange(width) + 0.5) / self.focal
        v = (top + np.arange(height) + 0.5) / self.focal
        right, down, forward = self.rotation
        return np.asarray(u[:, None] * right + v[:, None, None] * down + forward)


def look_at(eye: Array, aim: Array, *, azimuth: float, focal: float) -> Camera:
    """A camera at `eye` that has `aim` in its center; `azimuth` is up where it looks down."""
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    steep = math.hypot(forward[0], forward[1]) < 0.1
    up = np.array([math.cos(azimuth), math.sin(azimuth), 0.0] if steep else [0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return Camera(eye, np.stack([right, np.cross(forward, right), forward]), focal)


class Light(NamedTuple):
    """Unit vector towards the sun, linear RGB of sun and sky."""

    sun: Array  # (3,)
    sun_color: Array  # (3,)
    sky_color: Array  # (3,)


def boxes(body: Body, camera: Camera) -> Array:
    """Left, top, right, bottom (n, 4) in pixels of boxes that contain the projected parts."""
    local = (body.ends - camera.eye) @ camera.rotation.T
    depth = local[..., 2:]
    radii = (body.radii * np.maximum(1.0, body.flat)[:, None])[..., None]
    centers = camera.focal * local[..., :2] / depth
    reach = camera.focal * radii / (depth - radii) * (1.0 + np.abs(local[..., :2]) / depth)
    return np.concatenate([(centers - reach).min(axis=1), (centers + reach).max(axis=1)], axis=1)


def draw(
    body: Body, camera: Camera, light: Light, window: tuple[int, int, int, int], samples: int
) -> Array:
    """Linear RGB and coverage, (height * samples, width * samples, 4), 0 where nobody is.

    `window` is left, top, width, height in pixels from the principal point. Camera and light are
    in body axes, lengths in statures.
    """
    left, top, width, height = window
    shape = np.array([height, width]) * samples
    corners = (boxes(body, camera).reshape(-1, 2, 2) - (left, top)) * samples
    low = np.floor(corners[:, 0, ::-1]).clip(0, shape).astype(np.int64)
    high = np.ceil(corners[:, 1, ::-1]).clip(0, shape).astype(np.int64)
    grid = left / camera.focal, top / camera.focal, 1.0 / (samples * camera.focal)
    depth, image = np.full(shape, np.inf), np.zeros((*shape, 4))
    _draw(*body, low, high, camera.eye, camera.rotation, *light, *grid, depth, image)
    return image


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(
    ends: Array, radii: Array, flat: Array, floor: Array, paint: Any, colors: Array, low: Any,
    high: Any, eye: Array, rotation: Array, sun: Array, sun_color: Array, sky_color: Array,
    left: float, top: float, step: float, depth: Array, image: Array,
) -> None:  # fmt: skip
    """Part after part: fill image and depth (along the optical axis) where the part is nearest."""
    for k in range(len(ends)):
        squash = 1.0 / flat[k]  # along y, which makes the part round
        ox, oy, oz = eye - ends[k, 0]
        ax, ay, az = ends[k, 1] - ends[k, 0]
        oy, ay = oy * squash, ay * squash
        axis_axis, axis_o, o_o = (
            ax * ax + ay * ay + az * az, ax * ox + ay * oy + az * oz, ox * ox + oy * oy + oz * oz
        )  # fmt: skip
        taper = radii[k, 0] - radii[k, 1]
        for i in range(low[k, 0], high[k, 0]):
            v = top + (i + 0.5) * step
            for j in range(low[k, 1], high[k, 1]):
                u = left + (j + 0.5) * step
                dx = rotation[0, 0] * u + rotation[1, 0] * v + rotation[2, 0]
                dy = squash * (rotation[0, 1] * u + rotation[1, 1] * v + rotation[2, 1])
                dz = rotation[0, 2] * u + rotation[1, 2] * v + rotation[2, 2]
                size = math.sqrt(dx * dx + dy * dy + dz * dz)
                axis_d = (ax * dx + ay * dy + az * dz) / size
                o_d = (ox * dx + oy * dy + oz * dz) / size
                t = _hit(radii[k, 0], radii[k, 1], axis_axis, axis_o, o_o, axis_d, o_d) / size
                if not 0.0 < t < depth[i, j] or eye[2] + t * dz < floor[k]:
                    continue
                depth[i, j] = t
                # The hit relative to the start, and the sphere that touches the cone there.
                x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
                share = (ax * x + ay * y + az * z - radii[k, 0] * taper) / (axis_axis - taper**2)
                share = min(1.0, max(0.0, share))
                nx, ny, nz = x - share * ax, (y - share * ay) * squash, z - share * az
                size = math.sqrt(nx * nx + ny * ny + nz * nz)
                lambert = max(0.0, (nx * sun[0] + ny * sun[1] + nz * sun[2]) / size)
                sky = 0.62 + 0.38 * nz / size
                x, y, z = eye[0] + t * dx, eye[1] + t * dy * flat[k], eye[2] + t * dz
                second = _second_color(paint[k], x, y, z, y - ends[k, 0, 1], z - ends[k, 0, 2])
                for c in range(3):
                    albedo = colors[k, 0, c] * (1.0 - second) + colors[k, 1, c] * second
                    if second > 1.0:
                        albedo = 0.02
                    image[i, j, c] = albedo * (sky_color[c] * sky + sun_color[c] * lambert)
                image[i, j, 3] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _hit(
    first: float, second: float, axis_axis: float, axis_o: float, o_o: float, axis_d: float,
    o_d: float,
) -> float:  # fmt: skip
    """Distance along a ray to a round cone, inf where it misses.

    The cone goes from the origin along `axis`, with radii `first` and `second`; the ray starts at o
    with unit direction d. The other arguments are dot products of these. After Inigo Quilez,
    "round cone intersection".
    """
    taper = first - second
    side = axis_axis - taper * taper
    a = side - axis_d * axis_d
    b = side * o_d - axis_o * axis_d + axis_d * taper * first
    c = side * o_o - axis_o * axis_o + 2.0 * axis_o * taper * first - axis_axis * first * first
    root = b * b - a * c
    if root < 0.0:
        return np.inf
    t = -(math.sqrt(root) + b) / a
    if 0.0 < axis_o - first * taper + t * axis_d < side:
        return t
    best = np.inf
    root = o_d * o_d - o_o + first * first
    if root > 0.0:
        best = -o_d - math.sqrt(root)
    end_d = o_d - axis_d
    root = end_d * end_d - o_o + 2.0 * axis_o - axis_axis + second * second
    if root > 0.0:
        best = min(best, -end_d - math.sqrt(root))
    return best


@njit(cache=True, nogil=True)
def _second_color(paint: int, x: float, y: float, z: float, dy: float, dz: float) -> float:
    """Share of the second color, or 2 for an eye, of a position in `body.PAINTS`.

    x, y, z in body axes; dy, dz from the center of the part's start.
    """
    if paint == 1:  # striped
        return 1.0 if z % 0.06 < 0.03 else 0.0
    if paint == 2:  # checked
        return 0.5 * (x % 0.06 < 0.03) + 0.5 * (z % 0.06 < 0.03)
    if paint == 3:  # two-tone: the upper part of the trunk
        return 1.0 if z > 0.69 else 0.0
    if paint == 4:  # open: what is worn below shows in front
        return 1.0 if y > 0.0 and abs(x) < 0.024 else 0.0
    if paint == 5:  # head: the hairline falls towards the back
        if dz > 0.070 + 0.9 * min(0.0, dy) and dy < 0.046:
            return 1.0
        return 2.0 if dy > 0.03 and 0.024 < dz < 0.036 and 0.010 < abs(x) < 0.027 else 0.0
    return 0.0

"""Colors of what rays meet: cloth, skin, ground, backdrop, sun, sky and soft shadows."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.compiled import njit
from reid.synthetic.body import Body
from reid.synthetic.camera import Camera
from reid.synthetic.cast import Hits, Window

Array = NDArray[np.float64]

GROUNDS = ("grass", "asphalt", "paving", "soil", "concrete")
BACKDROP = 24.0
"""Meters from the person at which the ground ends in hedges and walls."""


class Light(NamedTuple):
    """Sun and sky of a session: unit vector towards the sun, linear RGB of both."""

    sun: Array  # (3,)
    sun_color: Array  # (3,)
    sky_color: Array  # (3,)


def shade(
    body: Body, camera: Camera, window: Window, hits: Hits, light: Light, ground: int, seed: int
) -> Array:
    """Linear RGB (height * samples, width * samples, 3) of what the rays met.

    `ground` indexes GROUNDS; `seed` varies its texture and the backdrop.
    """
    color = np.empty((*hits.depth.shape, 3))
    _shade(
        body.axes, body.origin, body.scale, body.cone, body.material, body.paint, body.colors,
        body.period, camera.position, camera.rotation, *window.grid(camera), hits.depth,
        hits.part, light.sun, light.sun_color, light.sky_color, ground, seed, color,
    )  # fmt: skip
    return color


@njit(cache=True, nogil=True)
def _hash(x: int, y: int, seed: int) -> float:
    """A pseudo-random number in [0, 1) for a lattice point."""
    h = (x * 374761393 + y * 668265263 + seed * 1274126177) & 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True, nogil=True)
def _noise(x: float, y: float, seed: int) -> float:
    """Smooth value noise in [0, 1) with unit period."""
    i, j = math.floor(x), math.floor(y)
    a, b = x - i, y - j
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    near = _hash(i, j, seed) * (1.0 - a) + _hash(i + 1, j, seed) * a
    far = _hash(i, j + 1, seed) * (1.0 - a) + _hash(i + 1, j + 1, seed) * a
    return near * (1.0 - b) + far * b


@njit(cache=True, nogil=True)
def _mix(paint: int, x: float, y: float, z: float, qy: float, qz: float, period: float) -> float:
    """Share of the second color; x, y, z in meters, q in radii of the part."""
    if paint == 1:  # striped
        return 1.0 if (z / period) % 1.0 < 0.5 else 0.0
    if paint == 2:  # pinstriped
        return 1.0 if (x / (0.5 * period)) % 1.0 < 0.3 else 0.0
    if paint == 3:  # checked
        across = (x / period) % 1.0 < 0.5
        along = (z / period) % 1.0 < 0.5
        return 0.5 * (across + along)
    if paint == 4:  # dotted
        a, b = (x / (0.6 * period)) % 1.0 - 0.5, (z / (0.6 * period)) % 1.0 - 0.5
        return 1.0 if a * a + b * b < 0.09 else 0.0
    if paint == 5:  # two-tone: the upper part of trunk and arms
        return 1.0 if z > 1.6 * period else 0.0
    if paint == 6:  # open: what is worn below shows in front
        return 1.0 if y > 0.0 and abs(x) < 0.042 else 0.0
    if paint == 7:  # head: hairline falls towards the back; eyes
        if qz > 0.62 - 0.75 * max(0.0, -qy) and qy < 0.75:
            return 1.0
        if qy > 0.5 and 0.0 < qz < 0.2 and 0.018 < abs(x) < 0.048:
            return 2.0
        return 3.0 if qy > 0.5 and -0.56 < qz < -0.44 and abs(x) < 0.024 else 0.0
    return 0.0


@njit(cache=True, nogil=True)
def _ground(kind: int, x: float, y: float, seed: int, out: Array) -> None:
    """Linear RGB of the ground at x, y meters."""
    coarse = _noise(0.7 * x, 0.7 * y, seed)
    fine = _noise(9.0 * x, 9.0 * y, seed + 1)
    grain = _noise(37.0 * x, 37.0 * y, seed + 2)
    if kind == 0:  # grass
        level = 0.55 + 0.35 * coarse + 0.35 * fine + 0.3 * grain
        out[0], out[1], out[2] = 0.075 * level, 0.135 * level, 0.035 * level
        if coarse > 0.72:
            out[0], out[1] = out[0] * 1.6, out[1] * 1.15
    elif kind == 1:  # asphalt
        level = 0.75 + 0.2 * coarse + 0.15 * fine + 0.3 * grain
        out[0], out[1], out[2] = 0.088 * level, 0.088 * level, 0.094 * level
    elif kind == 2:  # paving
        size = 0.5
        row = math.floor(y / size)
        shifted = x + 0.25 * (row % 2)
        tone = _hash(math.floor(shifted / size), int(row), seed)
        level = 0.8 + 0.3 * tone + 0.12 * grain
        if (shifted / size) % 1.0 < 0.05 or (y / size) % 1.0 < 0.05:
            level *= 0.5
        out[0], out[1], out[2] = 0.30 * level, 0.26 * level, 0.22 * level
    elif kind == 3:  # soil
        level = 0.7 + 0.4 * coarse + 0.25 * fine + 0.2 * grain
        out[0], out[1], out[2] = 0.27 * level, 0.19 * level, 0.115 * level
    else:  # concrete
        level = 0.85 + 0.2 * coarse + 0.08 * fine + 0.1 * grain
        if x % 3.0 < 0.03 or y % 3.0 < 0.03:
            level *= 0.55
        out[0], out[1], out[2] = 0.36 * level, 0.36 * level, 0.35 * level


@njit(cache=True, nogil=True)
def _backdrop(azimuth: float, height: float, seed: int, out: Array) -> None:
    """Linear RGB where the ground ends: hedge, wall with windows, sky."""
    along = azimuth * BACKDROP
    block = math.floor(along / 9.0)
    kind = _hash(block, 7, seed)
    leaves = _noise(2.0 * along, 2.0 * height, seed) + 0.6 * _noise(7 * along, 7 * height, seed + 3)
    if height < 1.2 + 0.8 * leaves or (kind < 0.45 and height < 5.0 + 1.5 * leaves):
        level = 0.35 + 0.6 * leaves
        out[0], out[1], out[2] = 0.045 * level, 0.085 * level, 0.03 * level
    elif height < 9.0:
        tone = 0.16 + 0.4 * _hash(block, 11, seed)
        warm = 0.8 + 0.2 * _hash(block, 13, seed)
        out[0], out[1], out[2] = tone, tone * warm, tone * warm * warm
        if along % 2.4 < 1.1 and 0.9 < height % 3.0 < 2.3:
            out[0], out[1], out[2] = 0.05, 0.06, 0.075
    else:
        out[0], out[1], out[2] = 0.55, 0.66, 0.82


@njit(cache=True, nogil=True)
def _shadow(
    x: float, y: float, a: Array, b: Array, radii: Array, flat_x: Array, flat_y: Array
) -> float:
    """Share of the sun that reaches a ground point: soft edges around each part's shadow.

    Points are projected along the sun onto the plane across it, where a round cone casts the
    shadow of a capsule: px = x . flat_x and so on.
    """
    px = x * flat_x[0] + y * flat_x[1]
    py = x * flat_y[0] + y * flat_y[1]
    lit = 1.0
    for k in range(len(a)):
        ex, ey = b[k, 0] - a[k, 0], b[k, 1] - a[k, 1]
        wx, wy = px - a[k, 0], py - a[k, 1]
        squared = ex * ex + ey * ey
        t = 0.0 if squared == 0.0 else min(1.0, max(0.0, (wx * ex + wy * ey) / squared))
        dx, dy = wx - t * ex, wy - t * ey
        radius = radii[k, 0] + t * (radii[k, 1] - radii[k, 0])
        # The penumbra widens with the height of what throws the shadow.
        soft = 0.01 + 0.02 * (a[k, 2] + t * (b[k, 2] - a[k, 2]))
        clear = (math.sqrt(dx * dx + dy * dy) - radius) / (2.0 * soft) + 0.5
        if clear < lit:
            lit = max(0.0, clear)
    return lit


@njit(cache=True, nogil=True)
def _shade(
    axes: Array, origin: Array, scale: Array, cone: Array, material: Any,
    paint: Any, colors: Array, period: Array, eye: Array, rotation: Array,
    left: float, top: float, step: float, depth: Array, part: Any,
    sun: Array, sun_color: Array, sky_color: Array, ground: int, seed: int, out: Array,
) -> None:  # fmt: skip
    """Linear RGB of every sample."""
    count = len(axes)
    flat_x = np.array([sun[1], -sun[0], 0.0]) / math.sqrt(sun[0] * sun[0] + sun[1] * sun[1])
    flat_y = np.array(
        [
            sun[1] * flat_x[2] - sun[2] * flat_x[1],
            sun[2] * flat_x[0] - sun[0] * flat_x[2],
            sun[0] * flat_x[1] - sun[1] * flat_x[0],
        ]
    )
    a, b, radii = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros((count, 2))
    middle, reach = np.zeros(2), 0.0
    for k in range(count):
        for i in range(3):
            start = origin[k, i]
            end = start + axes[k, 2, i] * cone[k, 0] * scale[k, 2]
            a[k, 0] += start * flat_x[i]
            a[k, 1] += start * flat_y[i]
            b[k, 0] += end * flat_x[i]
            b[k, 1] += end * flat_y[i]
            if i == 2:
                a[k, 2], b[k, 2] = start, end
        width = 0.5 * (scale[k, 0] + scale[k, 1])
        radii[k, 0], radii[k, 1] = width * cone[k, 1], width * cone[k, 2]
        middle += 0.5 * (a[k, :2] + b[k, :2]) / count
    for k in range(count):
        for point in (a[k], b[k]):
            distance = math.hypot(point[0] - middle[0], point[1] - middle[1])
            reach = max(reach, distance + max(radii[k, 0], radii[k, 1]) + 0.1)
    base = np.zeros(3)
    normal = np.zeros(3)
    q = np.zeros(3)
    for i in range(depth.shape[0]):
        v = top + (i + 0.5) * step
        for j in range(depth.shape[1]):
            u = left + (j + 0.5) * step
            dx = rotation[0, 0] * u + rotation[1, 0] * v + rotation[2, 0]
            dy = rotation[0, 1] * u + rotation[1, 1] * v + rotation[2, 1]
            dz = rotation[0, 2] * u + rotation[1, 2] * v + rotation[2, 2]
            k = part[i, j]
            if k < 0:
                t = -eye[2] / dz if dz < 0.0 else np.inf
                x, y = eye[0] + t * dx, eye[1] + t * dy
                if eye[2] > 3.0 or (t < np.inf and x * x + y * y < BACKDROP * BACKDROP):
                    _ground(ground, x, y, seed, base)
                    px = x * flat_x[0] + y * flat_x[1] - middle[0]
                    py = x * flat_y[0] + y * flat_y[1] - middle[1]
                    lit = 1.0
                    if px * px + py * py < reach * reach:
                        lit = _shadow(x, y, a, b, radii, flat_x, flat_y)
                    for c in range(3):
                        light = sky_color[c] + lit * sun_color[c] * sun[2]
                        out[i, j, c] = base[c] * light
                else:
                    # Where the ray leaves the cylinder around the origin.
                    aa = dx * dx + dy * dy
                    bb = eye[0] * dx + eye[1] * dy
                    cc = eye[0] * eye[0] + eye[1] * eye[1] - BACKDROP * BACKDROP
                    t = (-bb + math.sqrt(bb * bb - aa * cc)) / aa
                    azimuth = math.atan2(eye[1] + t * dy, eye[0] + t * dx)
                    _backdrop(azimuth, eye[2] + t * dz, seed, base)
                    for c in range(3):
                        out[i, j, c] = base[c] * (sky_color[c] + 0.5 * sun_color[c])
                continue
            t = depth[i, j]
            px = eye[0] + t * dx - origin[k, 0]
            py = eye[1] + t * dy - origin[k, 1]
            pz = eye[2] + t * dz - origin[k, 2]
            for c in range(3):
                q[c] = (axes[k, c, 0] * px + axes[k, c, 1] * py + axes[k, c, 2] * pz) / scale[k, c]
            length, first, second = cone[k, 0], cone[k, 1], cone[k, 2]
            sine = (first - second) / length if length > abs(first - second) else 0.0
            rho = math.sqrt(q[0] * q[0] + q[1] * q[1])
            if length > 0.0 and first * sine <= q[2] <= length + second * sine and rho > 0.0:
                cosine = math.sqrt(1.0 - sine * sine)
                nx, ny, nz = q[0] / rho * cosine, q[1] / rho * cosine, sine
            else:
                nx, ny, nz = q[0], q[1], q[2] if q[2] < first * sine else q[2] - length
            nx, ny, nz = nx / scale[k, 0], ny / scale[k, 1], nz / scale[k, 2]
            size = math.sqrt(nx * nx + ny * ny + nz * nz)
            for c in range(3):
                normal[c] = (nx * axes[k, 0, c] + ny * axes[k, 1, c] + nz * axes[k, 2, c]) / size
            if normal[0] * dx + normal[1] * dy + normal[2] * dz > 0.0:
                normal *= -1.0
            z = q[2] * scale[k, 2]
            m = material[k]
            mix = _mix(paint[m], q[0] * scale[k, 0], q[1] * scale[k, 1], z, q[1], q[2], period[m])
            lambert = max(0.0, normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2])
            sky = 0.62 + 0.38 * normal[2]
            for c in range(3):
                if mix <= 1.0:
                    albedo = colors[m, 0, c] * (1.0 - mix) + colors[m, 1, c] * mix
                elif mix == 2.0:
                    albedo = 0.02
                else:
                    albedo = colors[m, 0, c] * (0.75 if c == 0 else 0.45)
                out[i, j, c] = albedo * (sky_color[c] * sky + sun_color[c] * lambert)

"""Ray casting of bodies on a textured ground: numba kernels, no state, no allocation surprises.

Every kernel is deterministic (no fast-math, no threads), so equal input gives equal bytes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.synthetic.body import Body
from reid.synthetic.camera import Camera

Array = NDArray[np.float64]

GROUNDS = ("grass", "asphalt", "paving", "soil", "concrete")
BACKDROP = 24.0
"""Metres from the person at which the ground ends in hedges and walls."""


class Light(NamedTuple):
    """Sun and sky of a session: unit vector towards the sun, linear RGB of both."""

    sun: Array  # (3,)
    sun_colour: Array  # (3,)
    sky_colour: Array  # (3,)


class Window(NamedTuple):
    """A rectangle of the sensor, in pixels from the principal point, and samples per pixel."""

    left: int
    top: int
    width: int
    height: int
    samples: int


class Hits(NamedTuple):
    """What the rays of a window meet first."""

    depth: Array  # (height * samples, width * samples) metres along the optical axis, inf: none
    part: NDArray[np.int16]  # the same shape, -1: none


def cast(body: Body, camera: Camera, window: Window) -> Hits:
    """Cast `samples` x `samples` rays per pixel of the window."""
    shape = (window.height * window.samples, window.width * window.samples)
    hits = Hits(np.full(shape, np.inf), np.full(shape, -1, dtype=np.int16))
    _cast(
        body.axes, body.origin, body.scale, body.cone, body.clip,
        camera.position, camera.rotation, *_grid(camera, window), hits.depth, hits.part,
    )  # fmt: skip
    return hits


def crop(
    hits: Hits, window: Window, *, left: int, top: int, right: int, bottom: int
) -> tuple[Hits, Window]:
    """The pixels [left, right) x [top, bottom) of a window, counted from its corner."""
    s = window.samples
    inside = (slice(top * s, bottom * s), slice(left * s, right * s))
    smaller = Window(window.left + left, window.top + top, right - left, bottom - top, s)
    return Hits(hits.depth[inside], hits.part[inside]), smaller


def shade(
    body: Body, camera: Camera, window: Window, hits: Hits, light: Light, ground: int, seed: int
) -> Array:
    """Linear RGB (height * samples, width * samples, 3) of what the rays met.

    `ground` indexes GROUNDS; `seed` varies its texture and the backdrop.
    """
    colour = np.empty((*hits.depth.shape, 3))
    _shade(
        body.axes, body.origin, body.scale, body.cone, body.material, body.paint, body.colours,
        body.period, camera.position, camera.rotation, *_grid(camera, window), hits.depth,
        hits.part, light.sun, light.sun_colour, light.sky_colour, ground, seed, colour,
    )  # fmt: skip
    return colour


def _grid(camera: Camera, window: Window) -> tuple[float, float, float]:
    """Left, top and step of the samples at depth 1."""
    step = 1.0 / (window.samples * camera.focal)
    return window.left / camera.focal, window.top / camera.focal, step


def kernel(samples: int, sigma: float) -> Array:
    """Point spread of lens, shutter and pixel along one axis, (k,) over samples, with sum 1.

    `sigma` is the blur in pixels. k is an odd number of pixels, so a kernel has a middle one.
    """
    reach = math.ceil(2.5 * sigma)
    offsets = (np.arange((2 * reach + 1) * samples) + 0.5) / samples - reach - 0.5
    # A pixel integrates over its area: average the Gaussian over a grid of its samples.
    grid = (np.arange(samples) + 0.5) / samples - 0.5
    spread = np.exp(-0.5 * ((offsets[:, None] - grid) / sigma) ** 2).sum(axis=1)
    return np.asarray(spread / spread.sum())


@njit(cache=True, nogil=True)
def expose(samples: Array, down: Array, right: Array, stride: int) -> Array:
    """Pixels of a sensor: samples weighted by the kernels of both axes, `stride` to a pixel.

    samples (H * stride, W * stride, 3) become (H - 2a, W - 2b, 3), a and b the pixels that the
    kernels reach beyond their middle one.
    """
    tall, wide = len(down), len(right)
    height = (samples.shape[0] - tall) // stride + 1
    width = (samples.shape[1] - wide) // stride + 1
    rows = np.zeros((height, samples.shape[1], 3))
    for i in range(height):
        for a in range(tall):
            weight = down[a]
            for j in range(samples.shape[1]):
                for c in range(3):
                    rows[i, j, c] += weight * samples[i * stride + a, j, c]
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            for b in range(wide):
                weight = right[b]
                for c in range(3):
                    out[i, j, c] += weight * rows[i, j * stride + b, c]
    return out


@njit(cache=True, nogil=True)
def _sphere(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, radius: float,
    low: float, high: float,
) -> float:  # fmt: skip
    """Nearest positive hit of a sphere around the origin whose z lies in [low, high]."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - radius * radius
    root = b * b - a * c
    if root < 0.0:
        return np.inf
    root = math.sqrt(root)
    near = (-b - root) / a
    if near > 0.0 and low <= oz + near * dz <= high:
        return near
    far = (-b + root) / a
    if far > 0.0 and low <= oz + far * dz <= high:
        return far
    return np.inf


@njit(cache=True, nogil=True)
def _hit(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float,
    length: float, first: float, second: float, low: float, high: float,
) -> float:  # fmt: skip
    """Nearest positive hit of a round cone along z, kept between low and high."""
    if length <= abs(first - second):
        shift = 0.0 if first >= second else length
        return _sphere(
            ox, oy, oz - shift, dx, dy, dz, max(first, second), low - shift, high - shift
        )
    # The side touches both spheres along circles; its normal leans by `sine`.
    sine = (first - second) / length
    squared = 1.0 - sine * sine
    start, end = first * sine, length + second * sine
    best = np.inf
    e = first - oz * sine
    a = (dx * dx + dy * dy) * squared - dz * dz * sine * sine
    b = (ox * dx + oy * dy) * squared + e * dz * sine
    c = (ox * ox + oy * oy) * squared - e * e
    root = b * b - a * c
    if root >= 0.0 and a != 0.0:
        root = math.sqrt(root)
        for sign in (-1.0, 1.0):
            t = (-b + sign * root) / a
            z = oz + t * dz
            if 0.0 < t < best and start <= z <= end and low <= z <= high:
                best = t
    if low < start:
        best = min(best, _sphere(ox, oy, oz, dx, dy, dz, first, low, min(start, high)))
    if high > end:
        best = min(
            best,
            _sphere(ox, oy, oz - length, dx, dy, dz, second, max(end, low) - length, high - length),
        )
    return best


@njit(cache=True, nogil=True)
def _cast(
    axes: Array, origin: Array, scale: Array, cone: Array, clip: Array,
    eye: Array, rotation: Array, left: float, top: float, step: float,
    depth: Array, part: Any,
) -> None:  # fmt: skip
    """Fill depth (along the optical axis) and part per sample, part after part."""
    rows, columns = depth.shape
    for k in range(len(axes)):
        length, first, second = cone[k, 0], cone[k, 1], cone[k, 2]
        widest = max(scale[k, 0], scale[k, 1], scale[k, 2])
        # Samples that can hit: around the bounding spheres of both ends.
        u0 = v0 = np.inf
        u1 = v1 = -np.inf
        for end in range(2):
            radius = widest * (first if end == 0 else second)
            shift = 0.0 if end == 0 else length * scale[k, 2]
            x = y = z = 0.0
            for i in range(3):
                centre = origin[k, i] + shift * axes[k, 2, i] - eye[i]
                x += rotation[0, i] * centre
                y += rotation[1, i] * centre
                z += rotation[2, i] * centre
            nearest = max(z - radius, 1e-3)
            spread_u = radius * (1.0 + abs(x) / nearest) / nearest
            spread_v = radius * (1.0 + abs(y) / nearest) / nearest
            u0 = min(u0, x / z - spread_u)
            u1 = max(u1, x / z + spread_u)
            v0 = min(v0, y / z - spread_v)
            v1 = max(v1, y / z + spread_v)
        j0 = max(0, math.floor((u0 - left) / step))
        j1 = min(columns, math.ceil((u1 - left) / step) + 1)
        i0 = max(0, math.floor((v0 - top) / step))
        i1 = min(rows, math.ceil((v1 - top) / step) + 1)
        # Rays in the unit frame of the part: o + t (u, v, 1) turn.
        o = np.zeros(3)
        turn = np.zeros((3, 3))
        for a in range(3):
            for i in range(3):
                unit = axes[k, a, i] / scale[k, a]
                o[a] += unit * (eye[i] - origin[k, i])
                for c in range(3):
                    turn[a, c] += unit * rotation[c, i]
        for i in range(i0, i1):
            v = top + (i + 0.5) * step
            for j in range(j0, j1):
                u = left + (j + 0.5) * step
                t = _hit(
                    o[0], o[1], o[2],
                    turn[0, 0] * u + turn[0, 1] * v + turn[0, 2],
                    turn[1, 0] * u + turn[1, 1] * v + turn[1, 2],
                    turn[2, 0] * u + turn[2, 1] * v + turn[2, 2],
                    length, first, second, clip[k, 0], clip[k, 1],
                )  # fmt: skip
                if t < depth[i, j]:
                    depth[i, j] = t
                    part[i, j] = k


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
    """Share of the second colour; x, y, z in metres, q in radii of the part."""
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
    """Linear RGB of the ground at x, y metres."""
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
    paint: Any, colours: Array, period: Array, eye: Array, rotation: Array,
    left: float, top: float, step: float, depth: Array, part: Any,
    sun: Array, sun_colour: Array, sky_colour: Array, ground: int, seed: int, out: Array,
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
                        light = sky_colour[c] + lit * sun_colour[c] * sun[2]
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
                        out[i, j, c] = base[c] * (sky_colour[c] + 0.5 * sun_colour[c])
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
                    albedo = colours[m, 0, c] * (1.0 - mix) + colours[m, 1, c] * mix
                elif mix == 2.0:
                    albedo = 0.02
                else:
                    albedo = colours[m, 0, c] * (0.75 if c == 0 else 0.45)
                out[i, j, c] = albedo * (sky_colour[c] * sky + sun_colour[c] * lambert)

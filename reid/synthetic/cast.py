"""Rays against bodies: which part of a figure a pixel sees, and how far away.

The numba kernels of a module call each other only: a cached kernel is not compiled again when
something it calls changes in another file. None uses fast-math or threads, so that equal input
gives equal bytes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.compiled import njit
from reid.synthetic.body import Body
from reid.synthetic.camera import Camera

Array = NDArray[np.float64]


class Window(NamedTuple):
    """A rectangle of the sensor, in pixels from the principal point, and samples per pixel."""

    left: int
    top: int
    width: int
    height: int
    samples: int

    def grid(self, camera: Camera) -> tuple[float, float, float]:
        """Left, top and step of the samples at depth 1."""
        step = 1.0 / (self.samples * camera.focal)
        return self.left / camera.focal, self.top / camera.focal, step


class Hits(NamedTuple):
    """What the rays of a window meet first."""

    depth: Array  # (height * samples, width * samples) meters along the optical axis, inf: none
    part: NDArray[np.int16]  # the same shape, -1: none


def cast(body: Body, camera: Camera, window: Window) -> Hits:
    """Cast `samples` x `samples` rays per pixel of the window."""
    shape = (window.height * window.samples, window.width * window.samples)
    hits = Hits(np.full(shape, np.inf), np.full(shape, -1, dtype=np.int16))
    _cast(
        body.axes, body.origin, body.scale, body.cone, body.clip,
        camera.position, camera.rotation, *window.grid(camera), hits.depth, hits.part,
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
                center = origin[k, i] + shift * axes[k, 2, i] - eye[i]
                x += rotation[0, i] * center
                y += rotation[1, i] * center
                z += rotation[2, i] * center
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

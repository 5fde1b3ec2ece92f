"""Bodies as arrays: stretched round cones with materials, and the builder that collects them.

A part is a round cone (the hull of two spheres) in its own frame, stretched along its axes, so
one shape serves as limb, trunk, head, garment and bag.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.synthetic.people import Rgb

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PAINTS = ("plain", "striped", "pinstriped", "checked", "dotted", "two-tone", "open", "head")
"""How a surface is colored from its two colors; shade.py knows them by their position."""

NO_LIMIT = 9.0
"""Meters: beyond every part, so a clip there does nothing."""

FORWARD = np.array([0.0, 1.0, 0.0])
UP = np.array([0.0, 0.0, 1.0])


class Body(NamedTuple):
    """n parts and m materials as arrays. Lengths in meters, frames in world axes."""

    axes: Array  # (n, 3, 3) rows: to the right, forward, along
    origin: Array  # (n, 3) center of the first sphere
    scale: Array  # (n, 3) stretch of the unit frame along these axes
    cone: Array  # (n, 3) distance of the spheres, radius of the first, of the second
    clip: Array  # (n, 2) what is kept of the axis, in the unit frame
    material: Ints  # (n,) rows of the tables below
    paint: Ints  # (m,) index into PAINTS
    colors: Array  # (m, 2, 3) linear RGB
    period: Array  # (m,) of the pattern

    def spheres(self) -> tuple[Array, Array]:
        """Centers (2n, 3) and radii (2n,) of spheres whose hulls contain the parts."""
        ends = self.origin + self.axes[:, 2] * (self.scale[:, 2] * self.cone[:, 0])[:, None]
        widest = self.scale.max(axis=1)
        radii = np.concatenate([widest * self.cone[:, 1], widest * self.cone[:, 2]])
        return np.concatenate([self.origin, ends]), radii


@dataclass(frozen=True)
class Material:
    """Two sRGB colors, the pattern that mixes them, and its period in meters."""

    paint: str
    first: Rgb
    second: Rgb
    period: float = 1.0


@dataclass(frozen=True)
class _Part:
    axes: Array
    origin: Array
    scale: tuple[float, float, float]
    cone: tuple[float, float, float]
    clip: tuple[float, float]
    material: int


def frame(along: Array, front: Array) -> Array:
    """(3, 3) orthonormal rows right, forward, along; `front` lies in the forward half."""
    z = along / math.sqrt(float(along @ along))
    y = front - float(front @ z) * z
    y = y / math.sqrt(float(y @ y))
    x = (y[1] * z[2] - y[2] * z[1], y[2] * z[0] - y[0] * z[2], y[0] * z[1] - y[1] * z[0])
    return np.array([x, y, z])


@dataclass
class Builder:
    """Collects parts and materials in body axes: x to the right, y forward, z up."""

    parts: list[_Part] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def material(self, material: Material) -> int:
        """Add a material; returns its row."""
        self.materials.append(material)
        return len(self.materials) - 1

    def limb(
        self,
        start: Array,
        end: Array,
        radii: tuple[float, float],
        material: int,
        *,
        flat: tuple[float, float] = (1.0, 1.0),
        clip: tuple[float, float] = (-NO_LIMIT, NO_LIMIT),
        front: Array = FORWARD,
    ) -> None:
        """A round cone; `flat` stretches it sideways and forward, `clip` keeps a piece (meters)."""
        along = end - start
        length = math.sqrt(float(along @ along))
        axes = frame(along, front)
        scale = (*flat, 1.0)
        self.parts.append(_Part(axes, start, scale, (length, *radii), clip, material))

    def blob(
        self,
        center: Array,
        radii: tuple[float, float, float],
        material: int,
        *,
        clip: tuple[float, float] = (-NO_LIMIT, NO_LIMIT),
        axes: Array | None = None,
    ) -> None:
        """An ellipsoid; `clip` is in units of its radius along."""
        axes = np.eye(3) if axes is None else axes
        self.parts.append(_Part(axes, center, radii, (0.0, 1.0, 1.0), clip, material))

    def place(self, position: Array, heading: float) -> Body:
        """The body in the world: at `position` (3,), walking towards `heading` radians."""
        cos, sin = math.cos(heading), math.sin(heading)
        turn = np.array([[sin, cos, 0.0], [-cos, sin, 0.0], [0.0, 0.0, 1.0]])
        colors = np.array([(m.first, m.second) for m in self.materials]) / 255.0
        return Body(
            axes=np.stack([part.axes for part in self.parts]) @ turn.T,
            origin=np.stack([part.origin for part in self.parts]) @ turn.T + position,
            scale=np.array([part.scale for part in self.parts]),
            cone=np.array([part.cone for part in self.parts]),
            clip=np.array([part.clip for part in self.parts]),
            material=np.array([part.material for part in self.parts], dtype=np.int64),
            paint=np.array([PAINTS.index(m.paint) for m in self.materials], dtype=np.int64),
            colors=np.asarray(colors**2.2),
            period=np.array([m.period for m in self.materials]),
        )

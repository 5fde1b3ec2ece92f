"""Rays, cameras and the sensor, against slow and obvious computations."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid.synthetic import scene
from reid.synthetic.body import Body, figure
from reid.synthetic.people import Garment, Outfit, Person, draw_person
from reid.synthetic.render import Camera, Light, draw
from reid.synthetic.scene import CAPTURE_POINTS, CapturePoint, draw_take, expose, film

Array = NDArray[np.float64]
AHEAD = Camera(np.zeros(3), np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]), 36.0)
"""At the origin, looking along y."""
LIGHT = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.ones(3))
Triple = tuple[float, float, float]
Cone = tuple[Array, Array, float, float]


def drawn(*cones: Cone, flat: float) -> Array:
    """Linear RGB and coverage (24, 60, 4) of gray round cones: both centers, both radii."""
    count = len(cones)
    body = Body(
        ends=np.array([cone[:2] for cone in cones]),
        radii=np.array([cone[2:] for cone in cones]),
        flat=np.full(count, flat),
        floor=np.full(count, -9.0),
        paint=np.zeros(count, dtype=np.int64),
        colors=np.full((count, 2, 3), 0.5),
    )
    return draw(body, AHEAD, LIGHT, (-30, -12, 60, 24), 1)


def nearest_sphere(start: Array, end: Array, radii: tuple[float, float], rays: Array) -> Array:
    """Depth along y of the first of very many spheres between both ends, inf where none."""
    best = np.full(len(rays), np.inf)
    for share in np.linspace(0.0, 1.0, 400):
        center = start + share * (end - start)
        radius = radii[0] + share * (radii[1] - radii[0])
        along, square = rays @ center, (rays**2).sum(axis=1)
        root = along**2 - square * (center @ center - radius**2)
        depth = (along - np.sqrt(np.maximum(root, 0.0))) / square
        best = np.where((root >= 0) & (depth > 0), np.minimum(best, depth), best)
    return best


@settings(max_examples=40, deadline=None)
@given(
    start=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    end=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    radii=st.tuples(st.floats(0.1, 0.6), st.floats(0.1, 0.6)),
    flat=st.sampled_from([0.7, 1.0, 1.2]),
)
def test_two_parts_are_hulls_of_spheres_and_the_nearer_hides_the_other(
    start: Triple, end: Triple, radii: tuple[float, float], flat: float
) -> None:
    first, last = np.array([0.0, 4.0, 0.0]) + start, np.array([0.0, 4.0, 0.0]) + end
    if np.linalg.norm((last - first) / (1, flat, 1)) <= abs(radii[0] - radii[1]) + 1e-3:
        last = last + np.array([1.5, 0.0, 0.0])
    cone: Cone = first, last, *radii
    ball: Cone = np.array([0.2, 4.1, 0.1]), np.array([0.2, 4.1, 0.11]), 0.3, 0.3
    u, v = np.meshgrid((np.arange(60) - 29.5) / 36.0, (np.arange(24) - 11.5) / 36.0)
    # Parts are flattened along y: to the oracle everything is nearer or farther.
    rays = np.stack([u, np.full_like(u, 1 / flat), -v], axis=-1).reshape(-1, 3)
    depths = [
        nearest_sphere(a / (1, flat, 1), b / (1, flat, 1), (r, s), rays).reshape(24, 60)
        for a, b, r, s in (cone, ball)
    ]
    alone = [drawn(part, flat=flat) for part in (cone, ball)]
    for depth, image in zip(depths, alone, strict=True):
        assert (np.isfinite(depth) != (image[..., 3] > 0)).sum() <= 4  # where rays graze
    expected = np.where((depths[0] < depths[1])[..., None], *alone)
    wrong = (drawn(ball, cone, flat=flat) != expected).any(axis=2)
    with np.errstate(invalid="ignore"):
        clear = ~(np.abs(depths[0] - depths[1]) < 0.05)
    assert (wrong & clear).sum() <= 8


PERSON = Person(
    False, 1.8, "average", 0, "black", "bald", False,
    (Outfit(Garment("shirt", "red", "red"), Garment("trousers", "blue", "blue"),
            Garment("shoes", "black", "black"), None, None),) * 2,
)  # fmt: skip


@pytest.mark.parametrize("point", CAPTURE_POINTS, ids=str)
def test_crops_have_the_height_of_the_pinhole(
    point: CapturePoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "ROOM", 0.0)  # only up to 0.6 pixels of room, and whole pixels
    center = math.atan2(point.height - 0.9, point.distance)
    foot = math.atan2(point.height, point.distance) - center
    top = math.atan2(point.height - PERSON.stature, point.distance) - center
    focal = 1920 * 24 / 36
    pole = focal * (math.tan(foot) - math.tan(top))
    # Feet and head are not points: from above, a depth of 0.55 m adds to the height.
    depth = 0.55 * focal / (point.slant - 1.8) * math.sin(math.radians(point.angle)) ** 2
    rng = np.random.default_rng(1)
    take = replace(draw_take(rng, session=0, point=point), azimuth=0.0, phase=0.0)
    height = len(next(film(PERSON, 0, take, 1, rng)))
    assert max(pole, 0.8 * depth) <= height <= pole + depth + 3


@given(seed=st.integers(0, 500), phase=st.floats(-4, 4))
@settings(max_examples=40, deadline=None)
def test_every_body_stands_on_the_ground_and_is_a_stature_tall(seed: int, phase: float) -> None:
    person = draw_person(np.random.default_rng(seed), changed_share=0.0)
    body = figure(replace(person, hairstyle="bald"), 0, phase=phase)
    lows, highs = body.ends[..., 2] - body.radii, body.ends[..., 2] + body.radii
    assert lows.max(where=body.floor[:, None] < 0, initial=-1) > 0.5
    assert np.maximum(lows, body.floor[:, None]).min() == pytest.approx(0.0, abs=1e-9)
    assert 0.95 < highs.max() < 1.05


def test_the_sensor_keeps_the_light_and_shakes_smear_it() -> None:
    take = replace(
        draw_take(np.random.default_rng(0), session=0, point=None),
        blur=1.2, shake=0.0, noise=0.0, gain=1.0,
    )  # fmt: skip
    point = np.zeros((31, 31, 3))
    point[15, 15] = 2.0
    light = (expose(point, take, np.random.default_rng(0)) / 255.0) ** 2.2
    profile, offsets = (light - np.median(light))[10:21, 10:21, 0].sum(axis=1), np.arange(11) - 5
    assert profile.sum() == pytest.approx(2.0, rel=0.1)
    assert (profile @ offsets**2 / profile.sum()) ** 0.5 == pytest.approx(1.2, rel=0.15)

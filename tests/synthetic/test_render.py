"""Rays, cameras and the sensor, against slow and obvious computations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid.synthetic import camera, people
from reid.synthetic.body import Body, Builder, Material
from reid.synthetic.camera import CAPTURE_POINTS, DRONE_FOCAL, CapturePoint
from reid.synthetic.cast import Window, cast, crop
from reid.synthetic.figure import figure
from reid.synthetic.sensor import expose, kernel

Array = NDArray[np.float64]
GRAY = Material("plain", (128, 128, 128), (128, 128, 128))
AHEAD = camera.Camera(np.zeros(3), np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]), 36.0)
"""At the origin, looking along y."""


def nearest_sphere(start: Array, end: Array, radii: tuple[float, float], rays: Array) -> Array:
    """Depth along y of the first of very many spheres between both ends, inf where none."""
    best = np.full(len(rays), np.inf)
    for share in np.linspace(0.0, 1.0, 400):
        center = start + share * (end - start)
        radius = radii[0] + share * (radii[1] - radii[0])
        along = rays @ center
        square = (rays**2).sum(axis=1)
        root = along**2 - square * (center @ center - radius**2)
        depth = (along - np.sqrt(np.maximum(root, 0.0))) / square
        best = np.where((root >= 0) & (depth > 0), np.minimum(best, depth), best)
    return best


@settings(max_examples=25)
@given(
    start=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    end=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    radii=st.tuples(st.floats(0.1, 0.6), st.floats(0.1, 0.6)),
)
def test_a_round_cone_is_the_hull_of_its_spheres(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radii: tuple[float, float],
) -> None:
    before = np.array([0.0, 4.0, 0.0])
    first, last = before + start, before + end
    # The frame of a limb needs a direction that is not the one in which it "faces".
    if np.linalg.norm(np.cross(last - first, [0, 1, 0])) < 1e-2:
        last = last + np.array([0.1, 0.0, 0.0])
    builder = Builder()
    builder.limb(first, last, radii, builder.material(GRAY))
    body = builder.place(np.zeros(3), math.pi / 2)
    window = Window(-12, -12, 24, 24, 1)
    hits = cast(body, AHEAD, window)
    offsets = (np.arange(24) - 11.5) / AHEAD.focal
    u, v = np.meshgrid(offsets, offsets)
    rays = np.stack([u, np.ones_like(u), -v], axis=-1).reshape(-1, 3)
    expected = nearest_sphere(first, last, radii, rays).reshape(24, 24)
    # At the rim, where rays graze, the sampled hull may miss what the exact one touches.
    both = np.isfinite(expected) & np.isfinite(hits.depth)
    assert np.isfinite(expected).sum() >= 4
    assert (np.isfinite(expected) != np.isfinite(hits.depth)).sum() <= 2
    np.testing.assert_allclose(hits.depth[both], expected[both], atol=0.02)
    np.testing.assert_array_equal(hits.part >= 0, np.isfinite(hits.depth))


def test_the_nearer_part_hides_the_other() -> None:
    builder = Builder()
    gray = builder.material(GRAY)
    for depth in (5.0, 3.0, 4.0):
        builder.blob(np.array([0.0, depth, 0.0]), (0.5, 0.5, 0.5), gray)
    hits = cast(builder.place(np.zeros(3), math.pi / 2), AHEAD, Window(-1, -1, 2, 2, 1))
    assert (hits.part == 1).all()
    np.testing.assert_allclose(hits.depth, 2.5, atol=3e-3)


def test_a_crop_is_what_a_cast_of_its_window_gives() -> None:
    body = standing(people.draw_person(np.random.default_rng(0), changed_share=0.0))
    lens = camera.drone(CAPTURE_POINTS[0], azimuth=0.3, aim=np.array([0, 0, 0.9]))
    whole = Window(-60, -100, 120, 200, 2)
    hits, window = crop(cast(body, lens, whole), whole, left=15, top=30, right=80, bottom=150)
    assert window == Window(-45, -70, 65, 120, 2)
    again = cast(body, lens, window)
    # Equal but for rounding: two parts may meet where a ray hits.
    assert (hits.part != again.part).sum() <= 3
    np.testing.assert_allclose(hits.depth, again.depth)


def standing(person: people.Person) -> Body:
    return figure(person, 0, phase=0.0, position=np.zeros(3), heading=math.pi / 2)


def silhouette_height(person: people.Person, point: CapturePoint) -> float:
    """Height in pixels of the body at a capture point, without blur."""
    lens = camera.drone(point, azimuth=0.0, aim=np.array([0.0, 0.0, 0.9]))
    reach = math.ceil(1.6 * DRONE_FOCAL / point.slant)
    hits = cast(standing(person), lens, Window(-reach, -reach, 2 * reach, 2 * reach, 8))
    rows = np.flatnonzero((hits.part >= 0).any(axis=1))
    return float(rows[-1] + 1 - rows[0]) / 8


def pole_height(stature: float, point: CapturePoint) -> float:
    """Pixels between foot and top of a vertical pole, from the angles below the horizon."""
    center = math.atan2(point.height - 0.9, point.distance)
    foot = math.atan2(point.height, point.distance) - center
    top = math.atan2(point.height - stature, point.distance) - center
    return DRONE_FOCAL * (math.tan(foot) - math.tan(top))


@pytest.mark.parametrize("point", [p for p in CAPTURE_POINTS if p.angle == 30], ids=str)
def test_pixel_height_is_that_of_the_pinhole(point: CapturePoint) -> None:
    person = people.Person(
        False, 1.8, "average", 0, "black", "bald", False,
        (people.Outfit(
            people.Garment("shirt", "red", "red"), people.Garment("trousers", "blue", "blue"),
            people.Garment("shoes", "black", "black"), None, None,
        ),) * 2,
    )  # fmt: skip
    # Feet and head are not points: their depth along the ground adds a few percent.
    expected = pole_height(person.stature, point)
    assert expected * 0.98 - 1 <= silhouette_height(person, point) <= expected * 1.12 + 1


def test_far_people_are_small() -> None:
    person = people.draw_person(np.random.default_rng(5), changed_share=0.0)
    straight_down = [p for p in CAPTURE_POINTS if p.angle == 90]
    heights = [silhouette_height(person, point) for point in straight_down]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] / heights[-1] == pytest.approx(120 / 10, rel=0.25)
    assert heights[-1] < 15


def test_there_are_18_capture_points() -> None:
    assert len({(p.height, p.distance, p.angle) for p in CAPTURE_POINTS}) == 18


def test_a_kernel_keeps_the_light_and_spreads_with_the_blur() -> None:
    def width(sigma: float) -> float:
        weights = kernel(4, sigma)
        offsets = np.arange(len(weights)) - (len(weights) - 1) / 2
        return float(weights @ offsets**2) ** 0.5 / 4

    assert kernel(3, 0.5).sum() == pytest.approx(1.0)
    # A pixel alone is a box: a deviation of 1 / sqrt(12).
    assert width(0.05) == pytest.approx(12**-0.5, rel=0.05)
    assert width(1.0) == pytest.approx((1 + 1 / 12) ** 0.5, rel=0.05)


def test_exposure_is_the_weighted_sum_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    samples = rng.random((24, 18, 3))
    down, right = rng.random(9), rng.random(3)
    pixels = expose(samples, down, right, 3)
    assert pixels.shape == (6, 6, 3)
    patch = samples[3 * 2 : 3 * 2 + 9, 3 * 4 : 3 * 4 + 3]
    np.testing.assert_allclose(pixels[2, 4], np.einsum("a,b,abc->c", down, right, patch))

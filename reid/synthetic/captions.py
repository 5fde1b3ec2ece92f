"""Rendered people with captions of what they look like: what the tiny CLIPs learn from."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reid.synthetic.camera import CAPTURE_POINTS, CapturePoint
from reid.synthetic.people import Person, caption, draw_person
from reid.synthetic.scene import draw_take, film

_CAPTIONED = 4
"""Stream of random numbers: no person of the benchmark is drawn from it."""

_CHUNK = 250
_GROUND_SHARE = 0.3


class Captioned(NamedTuple):
    """n crops, resized to squares, and what is said of them."""

    crops: NDArray[np.uint8]  # (n, size, size, 3)
    captions: list[str]


def view_words(point: CapturePoint | None) -> str:
    """How a caption names where the camera is."""
    if point is None:
        return "from the ground"
    where = {30: "from a drone", 60: "from high up", 90: "from straight above"}[point.angle]
    return f"{where}, far away" if point.slant > 45 else where


def render_captioned(count: int, size: int, *, seed: int, workers: int) -> Captioned:
    """`count` people, one crop each, from the ground and from every capture point in turn.

    The first n of a longer run are those of a run of n, for any number of workers.
    """
    starts = range(0, count, _CHUNK)
    job = partial(_chunk, count=count, size=size, seed=seed)
    if workers == 1:
        chunks = [job(start) for start in starts]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            chunks = list(pool.map(job, starts))
    return Captioned(
        np.concatenate([chunk.crops for chunk in chunks]),
        [words for chunk in chunks for words in chunk.captions],
    )


def _chunk(start: int, *, count: int, size: int, seed: int) -> Captioned:
    numbers = range(start, min(start + _CHUNK, count))
    pairs = [_one(number, size, seed) for number in numbers]
    return Captioned(np.stack([crop for crop, _ in pairs]), [words for _, words in pairs])


def draw_captioned(number: int, seed: int) -> tuple[Person, np.random.Generator]:
    """The person of a caption, and the generator of everything else about it."""
    rng = np.random.default_rng((seed, _CAPTIONED, number))
    return draw_person(rng, changed_share=0.0), rng


def _one(number: int, size: int, seed: int) -> tuple[NDArray[np.uint8], str]:
    person, rng = draw_captioned(number, seed)
    session = int(rng.integers(2))
    point = None
    if rng.random() >= _GROUND_SHARE:
        point = CAPTURE_POINTS[int(rng.integers(len(CAPTURE_POINTS)))]
    take = draw_take(rng, session=session, point=point)
    pixels = next(film(person, session, take, 1, rng))
    square = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square), caption(person, session, view_words(point), rng)

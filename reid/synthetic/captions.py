"""Rendered people with captions of what they look like: what the tiny CLIPs learn from."""

from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from reid.processes import worker_pool
from reid.synthetic.people import Garment, Outfit, Person, draw_person
from reid.synthetic.scene import CAPTURE_POINTS, CapturePoint, draw_take, film

_CAPTIONED = 4
"""Stream of random numbers: no person of the benchmark is drawn from it."""

_GROUND_SHARE = 0.3


def render_captioned(
    count: int, size: int, *, seed: int, workers: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Crops (count, size, size, 3) of as many people and their captions.

    The camera is on the ground or at a random capture point.
    The first n of a longer run are those of a run of n, for any number of workers.
    """
    job, numbers = partial(_captioned_crop, size=size, seed=seed), range(count)
    with worker_pool(workers) as pool:  # starts its processes when it gets work
        pairs = map(job, numbers) if workers == 1 else pool.map(job, numbers, chunksize=50)
        crops, captions = zip(*pairs, strict=True)
    return np.stack(crops), list(captions)


def draw_captioned(number: int, seed: int) -> tuple[Person, Generator]:
    """The person of a caption, and the generator of everything else about it."""
    rng = np.random.default_rng((seed, _CAPTIONED, number))
    return draw_person(rng, changed_share=0.0), rng


def _captioned_crop(number: int, *, size: int, seed: int) -> tuple[NDArray[np.uint8], str]:
    person, rng = draw_captioned(number, seed)
    session = int(rng.integers(2))
    point = None
    if rng.random() >= _GROUND_SHARE:
        point = CAPTURE_POINTS[int(rng.integers(len(CAPTURE_POINTS)))]
    pixels = next(film(person, session, draw_take(rng, session=session, point=point), 1, rng))
    square = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square), caption(person, session, view_words(point), rng)


def view_words(point: CapturePoint | None) -> str:
    """How a caption names where the camera is."""
    if point is None:
        return "from the ground"
    where = {30: "from a drone", 60: "from high up", 90: "from straight above"}[int(point.angle)]
    return f"{where}, far away" if point.slant > 45 else where


def caption(person: Person, session: int, view: str, rng: Generator) -> str:
    """A sentence on a person in a session (0 or 1) seen in `view`, such as "from above".

    The order and the choice of details vary, as captions of photographs do; the upper and the
    lower garment are always named.
    """
    outfit = person.outfits[session]
    bottom = _garment(outfit.bottom)
    if outfit.bottom.kind == "skirt":
        bottom = _article(bottom)
    clothes = [_article(_garment(outfit.top)), bottom]
    if rng.random() < 0.7:
        clothes.append(_garment(outfit.shoes))
    dressed, carrying = f"in {', '.join(clothes)}", _extras(person, outfit, rng)
    parts = [dressed, carrying] if rng.random() < 0.7 else [carrying, dressed]
    return f"a photo of {_who(person)} {', '.join(filter(None, parts))}, seen {view}"


def _who(person: Person) -> str:
    tall = person.stature > (1.72 if person.woman else 1.83)
    height = "tall" if tall else "short" if person.stature < 1.58 else ""
    build = "" if person.build == "average" else person.build
    return _article(" ".join(filter(None, (height, build, "woman" if person.woman else "man"))))


def _extras(person: Person, outfit: Outfit, rng: Generator) -> str:
    extras = []
    if outfit.cap is not None:
        extras.append(_article(_garment(outfit.cap)))
    elif rng.random() < 0.7:
        styles = {"bald": "no hair", "bun": f"{person.hair} hair in a bun"}
        extras.append(styles.get(person.hairstyle, f"{person.hairstyle} {person.hair} hair"))
    if outfit.bag is not None:
        extras.append(_article(_garment(outfit.bag)))
    return f"with {' and '.join(extras)}" if extras else ""


def _garment(garment: Garment) -> str:
    """Such as "red and white striped t-shirt"."""
    if garment.pattern == "plain":
        return f"{garment.color} {garment.kind}"
    if garment.pattern == "open":
        return f"{garment.color} {garment.kind} over {garment.second}"
    return f"{garment.color} and {garment.second} {garment.pattern} {garment.kind}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

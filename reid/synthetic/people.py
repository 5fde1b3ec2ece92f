"""Who is rendered: attributes of people and their clothes in each session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.random import Generator

T = TypeVar("T")
Rgb = tuple[int, int, int]

# sRGB, 0..255. Names are what captions say.
COLORS: Mapping[str, Rgb] = {
    "black": (26, 26, 30), "white": (236, 236, 232), "gray": (128, 130, 132), "red": (196, 28, 34),
    "orange": (232, 118, 24), "yellow": (236, 204, 44), "green": (30, 136, 62),
    "olive": (98, 104, 50), "turquoise": (34, 168, 172), "blue": (34, 82, 196),
    "navy": (26, 36, 84), "sky-blue": (132, 184, 230), "purple": (112, 46, 148),
    "pink": (234, 130, 168), "brown": (106, 66, 38), "beige": (206, 184, 146),
}  # fmt: skip
HAIR: Mapping[str, Rgb] = {
    "black": (22, 18, 18), "brown": (74, 46, 28), "blond": (198, 164, 96), "red": (146, 66, 28),
    "gray": (150, 148, 146),
}  # fmt: skip
SKIN: Sequence[Rgb] = (
    (242, 206, 178), (226, 178, 142), (190, 138, 100), (138, 92, 62), (86, 56, 40),
)  # fmt: skip
GIRTH: Mapping[str, float] = {"slim": 0.88, "average": 1.0, "heavy": 1.2}
"""Builds, and the factor of each on the widths of trunk and limbs."""

HAIRSTYLES = ("bald", "short", "bob", "long", "bun")
TOPS = ("t-shirt", "shirt", "jacket", "coat")
BOTTOMS = ("trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
PATTERNS = ("plain", "striped", "checked", "two-tone", "open")

_PIECES = {"top": 0.3, "bottom": 0.2, "shoes": 0.2, "bag": 0.2, "cap": 0.1}
"""Pieces of an outfit, and how likely each is the one that changes."""


@dataclass(frozen=True)
class Garment:
    """A piece of clothing or a bag; only a pattern uses the second color."""

    kind: str
    color: str
    second: str
    pattern: str = "plain"


@dataclass(frozen=True)
class Outfit:
    """What one person wears in one session; `bag` and `cap` may be absent."""

    top: Garment
    bottom: Garment
    shoes: Garment
    bag: Garment | None
    cap: Garment | None


@dataclass(frozen=True)
class Person:
    """One identity: a body that stays, and an outfit for each of two sessions."""

    woman: bool
    stature: float  # meters
    build: str
    skin: int  # index into SKIN
    hair: str
    hairstyle: str
    beard: bool
    outfits: tuple[Outfit, Outfit]


def _pick(rng: Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of `options`, by weights that need not sum to 1 (default: equal)."""
    shares = None if weights is None else np.asarray(weights) / sum(weights)
    return options[int(rng.choice(len(options), p=shares))]


def _draw(rng: Generator, piece: str, *, woman: bool) -> Garment | None:
    """A random piece of an outfit; None: no bag, no cap."""
    kind, color = piece, _pick(rng, list(COLORS))
    patterns: Sequence[float] = (1, 0, 0, 0, 0)
    if piece == "top":
        kind = _pick(rng, TOPS, (4, 3, 2, 1))
        patterns = (5, 2, 0, 0, 4) if kind in ("jacket", "coat") else (5, 4, 3, 2.5, 0)
    elif piece == "bottom":
        kind, patterns = _pick(rng, BOTTOMS, (5, 2, 3 if woman else 0)), (7, 0.5, 1, 0, 0)
        if rng.random() < 0.6:
            color = _pick(rng, ("black", "gray", "navy", "blue", "brown", "beige", "olive"))
    elif piece == "shoes":
        color = _pick(rng, ("black", "white", "brown", "gray", "red", "blue"), (4, 4, 2, 2, 1, 1))
    elif piece == "bag":
        kind = _pick(rng, BAGS, (5, 4, 2.5, 2 if woman else 0.3))
    if kind == "none" or (kind == "cap" and rng.random() > 0.2):
        return None
    second = _pick(rng, [name for name in COLORS if name != color])
    return Garment(kind, color, second, _pick(rng, PATTERNS, patterns))


def draw_person(rng: Generator, *, changed_share: float) -> Person:
    """A random person; with probability `changed_share` part of the clothing changes.

    The body (stature, build, skin, hair) never changes.
    """
    woman = bool(rng.random() < 0.5)
    first = {piece: _draw(rng, piece, woman=woman) for piece in _PIECES}
    second = dict(first)
    if rng.random() < changed_share:
        while second == first:  # one to three other pieces
            for piece in rng.choice(list(_PIECES), 3, p=list(_PIECES.values())):
                second[str(piece)] = _draw(rng, str(piece), woman=woman)
    return Person(
        woman=woman,
        stature=float(np.clip(rng.normal(1.64 if woman else 1.77, 0.075), 1.48, 1.98)),
        build=_pick(rng, tuple(GIRTH), (3, 5, 2)),
        skin=int(rng.integers(len(SKIN))),
        hair=_pick(rng, tuple(HAIR), (4, 4, 2.5, 1, 1.5)),
        hairstyle=_pick(rng, HAIRSTYLES, (0, 1, 3, 4, 2) if woman else (1.5, 7, 1, 0.7, 0)),
        beard=bool(not woman and rng.random() < 0.35),
        outfits=(Outfit(**first), Outfit(**second)),  # type: ignore[arg-type]
    )

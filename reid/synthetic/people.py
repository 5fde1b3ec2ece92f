"""Who is rendered: attributes of people, their clothes in each session, and captions of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Rgb = tuple[float, float, float]
Pattern = Literal["plain", "striped", "pinstriped", "checked", "dotted", "two-tone", "open"]
Build = Literal["slim", "average", "heavy"]

# sRGB, 0..255. Names are what captions say.
COLOURS: Mapping[str, Rgb] = {
    "black": (26, 26, 30),
    "white": (236, 236, 232),
    "gray": (128, 130, 132),
    "red": (196, 28, 34),
    "orange": (232, 118, 24),
    "yellow": (236, 204, 44),
    "green": (30, 136, 62),
    "olive": (98, 104, 50),
    "turquoise": (34, 168, 172),
    "blue": (34, 82, 196),
    "navy": (26, 36, 84),
    "sky-blue": (132, 184, 230),
    "purple": (112, 46, 148),
    "pink": (234, 130, 168),
    "brown": (106, 66, 38),
    "beige": (206, 184, 146),
}
HAIR: Mapping[str, Rgb] = {
    "black": (22, 18, 18),
    "brown": (74, 46, 28),
    "blond": (198, 164, 96),
    "red": (146, 66, 28),
    "gray": (150, 148, 146),
}
SKIN: tuple[Rgb, ...] = (
    (242, 206, 178),
    (226, 178, 142),
    (190, 138, 100),
    (138, 92, 62),
    (86, 56, 40),
)
BUILDS: tuple[Build, ...] = ("slim", "average", "heavy")
HAIRSTYLES = ("bald", "short", "bob", "long", "bun")
TOPS = ("t-shirt", "shirt", "jacket", "coat")
BOTTOMS = ("trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
PATTERNS: tuple[Pattern, ...] = (
    "plain",
    "striped",
    "pinstriped",
    "checked",
    "dotted",
    "two-tone",
    "open",
)


@dataclass(frozen=True)
class Garment:
    """A piece of clothing or a bag: its kind, color(s) and pattern."""

    kind: str
    color: str
    second: str
    pattern: Pattern = "plain"

    def words(self) -> str:
        """As a caption names it, such as "red and white striped t-shirt"."""
        if self.pattern == "plain":
            return f"{self.color} {self.kind}"
        if self.pattern == "open":
            return f"{self.color} {self.kind} over {self.second}"
        return f"{self.color} and {self.second} {self.pattern} {self.kind}"


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
    build: Build
    skin: int  # index into SKIN
    hair: str
    hairstyle: str
    beard: bool
    outfits: tuple[Outfit, Outfit]

    @property
    def girth(self) -> float:
        """Factor on the widths of trunk and limbs."""
        return {"slim": 0.88, "average": 1.0, "heavy": 1.2}[self.build]


def _pick(rng: np.random.Generator, options: Sequence[T], weights: Sequence[float]) -> T:
    chances = np.asarray(weights, dtype=float)
    return options[int(rng.choice(len(options), p=chances / chances.sum()))]


def _color(rng: np.random.Generator, *, unlike: str | None = None) -> str:
    names = [name for name in COLOURS if name != unlike]
    return names[int(rng.integers(len(names)))]


def draw_top(rng: np.random.Generator) -> Garment:
    """A random upper garment."""
    kind = _pick(rng, TOPS, (4, 3, 2, 1))
    weights = (5, 2, 0, 0, 0, 0, 4) if kind in ("jacket", "coat") else (5, 3, 1.5, 2, 1, 2, 0)
    color = _color(rng)
    return Garment(kind, color, _color(rng, unlike=color), _pick(rng, PATTERNS, weights))


def draw_bottom(rng: np.random.Generator, *, woman: bool) -> Garment:
    """A random lower garment."""
    kind = _pick(rng, BOTTOMS, (5, 2, 3 if woman else 0))
    muted = ("black", "gray", "navy", "blue", "brown", "beige", "olive")
    color = muted[int(rng.integers(len(muted)))] if rng.random() < 0.6 else _color(rng)
    pattern = _pick(rng, PATTERNS, (7, 0.5, 0, 1, 0, 0, 0))
    return Garment(kind, color, _color(rng, unlike=color), pattern)


def draw_shoes(rng: np.random.Generator) -> Garment:
    """Random shoes."""
    options = ("black", "white", "brown", "gray", "red", "blue", "green", "orange")
    color = _pick(rng, options, (4, 4, 2, 2, 1, 1, 1, 1))
    return Garment("shoes", color, color)


def draw_bag(rng: np.random.Generator, *, woman: bool) -> Garment | None:
    """A random bag, or none."""
    kind = _pick(rng, BAGS, (5, 4, 2.5, 2 if woman else 0.3))
    color = _color(rng)
    return None if kind == "none" else Garment(kind, color, color)


def draw_cap(rng: np.random.Generator) -> Garment | None:
    """A cap for one person in five."""
    color = _color(rng)
    return Garment("cap", color, color) if rng.random() < 0.2 else None


def _change(rng: np.random.Generator, outfit: Outfit, *, woman: bool) -> Outfit:
    """The outfit of the other session: one to three pieces are other pieces."""
    pieces = ("top", "bottom", "shoes", "bag", "cap")
    count = int(rng.integers(1, 4))
    changed = rng.choice(len(pieces), size=count, replace=False, p=(0.3, 0.2, 0.2, 0.2, 0.1))
    for piece in sorted(pieces[int(i)] for i in changed):
        if piece == "top":
            outfit = replace(outfit, top=draw_top(rng))
        elif piece == "bottom":
            outfit = replace(outfit, bottom=draw_bottom(rng, woman=woman))
        elif piece == "shoes":
            outfit = replace(outfit, shoes=draw_shoes(rng))
        elif piece == "bag":
            outfit = replace(outfit, bag=draw_bag(rng, woman=woman))
        else:
            outfit = replace(outfit, cap=draw_cap(rng))
    return outfit


def draw_person(rng: np.random.Generator, *, changed_share: float) -> Person:
    """A random person; with probability `changed_share` part of the clothing changes.

    The body (stature, build, skin, hair) never changes.
    """
    woman = bool(rng.random() < 0.5)
    stature = float(np.clip(rng.normal(1.64 if woman else 1.77, 0.075), 1.48, 1.98))
    build = _pick(rng, BUILDS, (3, 5, 2))
    skin = int(rng.integers(len(SKIN)))
    hair = _pick(rng, tuple(HAIR), (4, 4, 2.5, 1, 1.5))
    hairstyle = _pick(rng, HAIRSTYLES, (0, 1, 3, 4, 2) if woman else (1.5, 7, 1, 0.7, 0))
    beard = bool(not woman and rng.random() < 0.35)
    first = Outfit(
        top=draw_top(rng),
        bottom=draw_bottom(rng, woman=woman),
        shoes=draw_shoes(rng),
        bag=draw_bag(rng, woman=woman),
        cap=draw_cap(rng),
    )
    second = first
    if rng.random() < changed_share:
        while second == first:
            second = _change(rng, first, woman=woman)
    return Person(woman, stature, build, skin, hair, hairstyle, beard, (first, second))


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(person: Person, session: int, view: str, rng: np.random.Generator) -> str:
    """A sentence on a person in a session (0 or 1) seen in `view`, such as "from above".

    The order and the choice of details vary, as captions of photographs do; the upper and the
    lower garment are always named.
    """
    outfit = person.outfits[session]
    noun = "woman" if person.woman else "man"
    adjectives = []
    if person.stature > 1.83 or (person.woman and person.stature > 1.72):
        adjectives.append("tall")
    elif person.stature < 1.58:
        adjectives.append("short")
    if person.build != "average":
        adjectives.append(person.build)
    who = _article(" ".join([*adjectives, noun]))
    if person.hairstyle == "bald":
        hair = "no hair"
    elif person.hairstyle == "bun":
        hair = f"{person.hair} hair in a bun"
    else:
        hair = f"{person.hairstyle} {person.hair} hair"
    bottom = outfit.bottom.words()
    clothes = [
        _article(outfit.top.words()),
        _article(bottom) if outfit.bottom.kind == "skirt" else bottom,
    ]
    if rng.random() < 0.7:
        clothes.append(outfit.shoes.words())
    extras = []
    if outfit.cap is not None:
        extras.append(_article(outfit.cap.words()))
    elif rng.random() < 0.7:
        extras.append(hair)
    if outfit.bag is not None:
        extras.append(_article(outfit.bag.words()))
    dressed = f"in {', '.join(clothes)}"
    carrying = f"with {' and '.join(extras)}" if extras else ""
    parts = [dressed, carrying] if rng.random() < 0.7 else [carrying, dressed]
    body = ", ".join(part for part in parts if part)
    return f"a photo of {who} {body}, seen {view}"

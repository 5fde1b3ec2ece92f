"""People and what captions say of them."""

from dataclasses import replace

import numpy as np
import pytest

from reid.synthetic import people
from reid.synthetic.people import Garment, Outfit, Person

PIECES = ("top", "bottom", "shoes", "bag", "cap")
PERSON = Person(
    woman=True,
    stature=1.75,
    build="slim",
    skin=2,
    hair="red",
    hairstyle="long",
    beard=False,
    outfits=(
        Outfit(
            top=Garment("shirt", "orange", "navy", "striped"),
            bottom=Garment("skirt", "olive", "olive"),
            shoes=Garment("shoes", "white", "white"),
            bag=Garment("backpack", "purple", "purple"),
            cap=None,
        ),
    )
    * 2,
)


def crowd(changed_share: float, count: int = 60) -> list[Person]:
    return [
        people.draw_person(np.random.default_rng((1, number)), changed_share=changed_share)
        for number in range(count)
    ]


def test_nobody_changes_clothes_at_share_zero() -> None:
    assert all(person.outfits[0] == person.outfits[1] for person in crowd(0.0))


def test_everybody_changes_part_of_the_clothes_at_share_one() -> None:
    for person in crowd(1.0):
        first, second = person.outfits
        changed = [piece for piece in PIECES if getattr(first, piece) != getattr(second, piece)]
        assert 1 <= len(changed) <= 3


def test_half_of_the_people_change_clothes_at_half() -> None:
    changed = sum(person.outfits[0] != person.outfits[1] for person in crowd(0.5, 400))
    assert 160 <= changed <= 240


def test_every_attribute_occurs() -> None:
    outfits = [person.outfits[0] for person in crowd(0.0, 600)]
    assert {outfit.top.kind for outfit in outfits} == set(people.TOPS)
    assert {outfit.bottom.kind for outfit in outfits} == set(people.BOTTOMS)
    assert {outfit.top.pattern for outfit in outfits} == set(people.PATTERNS)
    assert {outfit.top.color for outfit in outfits} == set(people.COLOURS)
    assert {outfit.bag.kind if outfit.bag else "none" for outfit in outfits} == set(people.BAGS)


@pytest.mark.parametrize("seed", range(8))
def test_a_caption_always_names_the_main_clothes_and_the_view(seed: int) -> None:
    words = people.caption(PERSON, 0, "from a drone", np.random.default_rng(seed))
    assert "tall slim woman" in words
    assert "an orange and navy striped shirt" in words
    assert "an olive skirt" in words
    assert "a purple backpack" in words
    assert words.endswith("seen from a drone")


def test_captions_of_one_person_vary() -> None:
    said = {people.caption(PERSON, 0, "x", np.random.default_rng(seed)) for seed in range(20)}
    assert len(said) > 3
    assert any("long red hair" in words for words in said)


def test_a_caption_tells_of_the_session_it_is_asked_for() -> None:
    later = replace(PERSON.outfits[0], top=Garment("coat", "black", "black"))
    person = replace(PERSON, outfits=(PERSON.outfits[0], later))
    rng = np.random.default_rng(0)
    assert "black coat" in people.caption(person, 1, "from above", rng)
    assert "black coat" not in people.caption(person, 0, "from above", rng)

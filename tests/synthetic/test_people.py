"""People, and what captions say of them."""

from dataclasses import replace

import numpy as np
import pytest

from reid.synthetic import people
from reid.synthetic.captions import caption
from reid.synthetic.people import Garment, Outfit, Person

PIECES = ("top", "bottom", "shoes", "bag", "cap")
OUTFIT = Outfit(
    top=Garment("shirt", "orange", "navy", "striped"),
    bottom=Garment("skirt", "olive", "olive"),
    shoes=Garment("shoes", "white", "white"),
    bag=Garment("backpack", "purple", "purple"),
    cap=None,
)
LATER = replace(OUTFIT, top=Garment("coat", "black", "black"))
PERSON = Person(True, 1.75, "slim", 2, "red", "long", False, (OUTFIT, LATER))


def crowd(changed_share: float, count: int) -> list[Person]:
    return [
        people.draw_person(np.random.default_rng((1, number)), changed_share=changed_share)
        for number in range(count)
    ]


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.5, 160, 240), (1, 400, 400)])
def test_a_share_of_the_people_changes_one_to_three_pieces(
    share: float, least: int, most: int
) -> None:
    changes = [
        sum(getattr(first, piece) != getattr(second, piece) for piece in PIECES)
        for first, second in (person.outfits for person in crowd(share, 400))
    ]
    assert least <= np.count_nonzero(changes) <= most
    assert max(changes) <= 3


def test_every_attribute_occurs() -> None:
    outfits = [person.outfits[0] for person in crowd(0.0, 600)]
    assert {outfit.top.kind for outfit in outfits} == set(people.TOPS)
    assert {outfit.bottom.kind for outfit in outfits} == set(people.BOTTOMS)
    assert {outfit.top.pattern for outfit in outfits} == set(people.PATTERNS)
    assert {outfit.top.color for outfit in outfits} == set(people.COLORS)
    assert {outfit.bag.kind if outfit.bag else "none" for outfit in outfits} == set(people.BAGS)


def test_captions_name_the_main_clothes_and_the_view_and_vary() -> None:
    captions = {caption(PERSON, 0, "from afar", np.random.default_rng(i)) for i in range(20)}
    for detail in ("tall slim woman", "an orange and navy striped shirt", "an olive skirt",
                   "a purple backpack", ", seen from afar"):  # fmt: skip
        assert all(detail in words for words in captions)
    assert len(captions) > 3
    assert any("long red hair" in words for words in captions)
    assert "a black coat" in caption(PERSON, 1, "from afar", np.random.default_rng(0))

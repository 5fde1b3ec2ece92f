"""How the page writes numbers and places."""

import math
from dataclasses import replace

import pytest

from reid.report.page import DASH, count, csv_uri, digits, scene
from tests.retrieval.worlds import tracklet


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH),
        (0, "0"),
        (999, "999"),
        (15360, "15.36 k"),
        (57.2e6, "57.20 M"),
        (2e9, "2.00 G"),
    ],
)
def test_large_numbers(value, text):
    assert count(value) == text


def test_digits():
    assert digits(None) == DASH
    assert digits(1234.567) == "1,234.57"
    assert digits(1.25, 0) == "1"


def test_a_place_is_what_the_layout_tells():
    aerial, ground = tracklet(1, 2, 3, "query"), tracklet(1, 0, 0, "query")
    assert scene(aerial) == "23.1 m up, 40 m away, 30 degrees, session 2"
    assert scene(ground) == "ground"
    unknown = dict.fromkeys(("altitude", "distance", "angle"), math.nan)
    assert scene(replace(aerial, **unknown)) == "aerial, session 2"
    assert scene(replace(aerial, distance=math.nan, angle=math.nan)) == "23.1 m up, session 2"
    bare = {**unknown, "session": None, "view": None}
    assert scene(replace(aerial, **bare, camera=5)) == "camera 5"
    assert scene(replace(aerial, **bare, camera=0)) == "camera 0"
    assert scene(replace(ground, camera=4)) == "ground, camera 4"


def test_a_csv_is_an_address():
    assert csv_uri("a,b\n") == "data:text/csv;base64,YSxiCg=="

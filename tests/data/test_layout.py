import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.layout import (
    CAPTURE_POINTS,
    GrammarError,
    Tracklet,
    parse_identity,
    parse_scene,
)
from reid.data.names import group
from tests.trees import frame_name

GROUND = "0012_0_3_2_1_F_00007.jpg"
AERIAL = "0012_23_10_2024_09_18_5.8_10_30_3_0_1_1_0_-1_-1_6_0_0_6_152_178_S2_00015.jpg"


def parse_frame(name, identity):
    return parse_scene(group([name])[0], identity)


def test_ground_name_has_no_metadata():
    scene = parse_frame(GROUND, 12)
    assert scene == ("ground", 0, None, None, None, None)


@pytest.mark.parametrize(("spelled", "session"), [("1", 1), ("2", 2), ("S1", 1), ("S2", 2)])
def test_aerial_name_in_both_session_spellings(spelled, session):
    scene = parse_frame(AERIAL.replace("S2", spelled), 12)
    assert scene == ("aerial", session, session, 5.8, 10.0, 30.0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0012_0_3_2_1_F_00007.png", "not a .jpg"),
        ("0012_0_3_2_1_F_00007", "not a .jpg"),
        (".DS_Store", "not a .jpg"),
        ("0012_0_3_2_1_00007.jpg", "6 fields"),
        ("0012_0_3__1_F_00007.jpg", "empty field"),
        ("0013_0_3_2_1_F_00007.jpg", "identity '0013'"),
        ("x_0_3_2_1_F_00007.jpg", "identity 'x'"),
        ("0012_0_3_2_1_F_7a.jpg", "no frame number"),
        ("0012_0_3_2_1_F_.jpg", "no frame number"),
        ("0012_0_3_2_1_F_0123456789.jpg", "no frame number of at most 9 digits"),
        ("\u0661.jpg", "no frame number"),
        (AERIAL.replace("5.8", "high"), "height 'high'"),
        (AERIAL.replace("5.8", "nan"), "height 'nan'"),
        (AERIAL.replace("5.8", "-5.8"), "height '-5.8'"),
        (AERIAL.replace("_10_30_3", "_inf_30_3"), "distance 'inf'"),
        (AERIAL.replace("_10_30_3", "_10_x_3"), "angle 'x'"),
        (AERIAL.replace("S2", "S3"), "session 'S3'"),
        (AERIAL.replace("S2", "0"), "session '0'"),
    ],
)
def test_other_names_are_errors_with_their_reason(name, reason):
    with pytest.raises(GrammarError, match=reason):
        parse_frame(name, 12)


@given(
    identity=st.integers(0, 99999),
    frame=st.integers(0, 99999),
    camera=st.sampled_from([1, 2]),
    point=st.integers(1, 18),
    spelling=st.sampled_from(["", "S"]),
)
def test_every_aerial_name_reads_back(identity, frame, camera, point, spelling):
    name = frame_name(identity, frame, camera=camera, point=point, spelling=spelling)
    assert parse_frame(name, identity) == (
        *("aerial", camera, camera),
        *CAPTURE_POINTS[point - 1],
    )


@given(st.text(max_size=60))
def test_arbitrary_text_never_fails_otherwise(text):
    with contextlib.suppress(GrammarError):
        parse_frame(text, 1)


@pytest.mark.parametrize("name", ["a", "", "-1", "+1", "1_0", " 1", "1.0", "\u0661"])
def test_person_folders_are_plain_integers(name):
    with pytest.raises(GrammarError):
        parse_identity(name)


def test_person_folders_may_have_leading_zeros():
    assert parse_identity("0042") == 42


def test_capture_points_have_numbers():
    def at(altitude, distance, angle):
        return Tracklet(
            *(1, "t", "train/1/t", "train", "aerial", 1, 1), altitude, distance, angle, ("f.jpg",)
        )

    assert [at(*point).capture_point for point in CAPTURE_POINTS] == list(range(1, 19))
    assert at(5.85, 10.0, 30.0).capture_point == 1
    assert at(7.0, 10.0, 30.0).capture_point is None
    ground = at(math.nan, math.nan, math.nan)
    assert ground.capture_point is None
    assert not ground.has_metadata

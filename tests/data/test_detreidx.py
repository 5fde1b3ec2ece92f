import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.detreidx import UnknownName, parse_name, parse_person
from reid.data.tracklet import CAPTURE_POINTS, Tracklet
from tests.trees import frame_name

GROUND = "0012_0_3_2_1_F_00007.jpg"
AERIAL = "0012_23_10_2024_09_18_5.8_10_30_3_0_1_1_0_-1_-1_6_0_0_6_152_178_S2_00015.jpg"


def parse_frame(name, identity=12):
    found, scene = parse_name(name)
    assert found == identity
    return scene


def test_names_read_back():
    assert parse_frame(GROUND) == ("ground", 0, None, None, None, None)
    assert parse_frame(GROUND.replace("00007", "0123456789012")).view == "ground"
    for spelled, session in (("1", 1), ("2", 2), ("S1", 1), ("S2", 2)):
        scene = parse_frame(AERIAL.replace("S2", spelled))
        assert scene == ("aerial", session, session, 5.8, 10.0, 30.0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0012_0_3_2_1_F_00007.png", "does not end in _FRAME.jpg"),
        ("0012_0_3_2_1_F_00007", "does not end in _FRAME.jpg"),
        (".DS_Store", "does not end in _FRAME.jpg"),
        ("0012_0_3_2_1_F_7a.jpg", "does not end in _FRAME.jpg"),
        ("0012_0_3_2_1_F_.jpg", "does not end in _FRAME.jpg"),
        ("\u0661.jpg", "does not end in _FRAME.jpg"),
        ("0012_0_3_2_1_00007.jpg", "6 fields between underscores; expected 7"),
        ("0012_0_3__1_F_00007.jpg", "7 fields"),
        ("x_0_3_2_1_F_00007.jpg", "7 fields"),
        (AERIAL.replace("5.8", "high"), "24 fields"),
        (AERIAL.replace("5.8", "nan"), "24 fields"),
        (AERIAL.replace("5.8", "-5.8"), "24 fields"),
        (AERIAL.replace("_10_30_3", "_inf_30_3"), "24 fields"),
        (AERIAL.replace("_10_30_3", "_10_x_3"), "24 fields"),
        (AERIAL.replace("S2", "S3"), "session 1, 2, S1 or S2"),
        (AERIAL.replace("S2", "0"), "session 1, 2, S1 or S2"),
    ],
)
def test_other_names_are_errors_with_their_reason(name, reason):
    with pytest.raises(UnknownName, match=reason):
        parse_name(name)


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
    with contextlib.suppress(UnknownName):
        parse_frame(text, 1)


def test_person_folders_are_plain_integers():
    assert parse_person("0042") == 42
    for name in ("a", "", "-1", "+1", "1_0", " 1", "1.0", "\u0661", str(2**63)):
        with pytest.raises(UnknownName):
            parse_person(name)


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

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.names import FrameNames

names = st.builds(
    lambda head, number, width, suffix: f"{head}_{number:0{width}d}{suffix}",
    st.sampled_from(["0001_0_3", "0001_23_x", "", "a_7"]),
    st.integers(0, 999_999_999),
    st.integers(1, 9),
    st.sampled_from([".jpg", ".JPG", ".jpeg"]),
)


@given(st.lists(names, max_size=30))
def test_reads_as_the_list_it_was_made_of(listed):
    made = FrameNames.of(listed)
    assert list(made) == listed
    assert made == listed
    assert len(made) == len(listed)
    assert made[-3:] == listed[-3:]
    assert [made[i] for i in range(-len(listed), 0)] == listed
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(tuple(listed))


def test_positions_outside_are_index_errors():
    made = FrameNames.of(["a_1.jpg", "a_2.jpg"])
    for position in (2, -3):
        with pytest.raises(IndexError):
            made[position]
    with pytest.raises(IndexError):
        FrameNames.of([])[0]


def test_other_names_are_refused():
    with pytest.raises(ValueError, match=r"'nonumber\.jpg'"):
        FrameNames.of(["a_1.jpg", "nonumber.jpg"])


def test_four_bytes_a_frame():
    made = FrameNames.of([f"0001_0_3_2_1_F_{i:05d}.jpg" for i in range(1000)])
    assert len(made.runs) == 1
    assert made.runs[0].numbers.nbytes == 4000

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.names import FrameNames, group

names = st.builds(
    lambda head, number, width, suffix: f"{head}_{number:0{width}d}{suffix}",
    st.sampled_from(["0001_0_3", "0001_23_x", "", "a_7"]),
    st.integers(0, 999_999_999),
    st.integers(1, 9),
    st.sampled_from([".jpg", ".JPG", ".jpeg"]),
) | st.sampled_from(
    [
        "x.jpg",
        "a_1",
        "é_1.jpg",
        ".DS_Store",
        "",
        "7",
        "0001C1T0001F1.jpg",
        "20241123101112131.jpg",
    ]
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


def test_four_bytes_a_frame():
    made = FrameNames.of([f"0001_0_3_2_1_F_{i:05d}.jpg" for i in range(1000)])
    assert len(made.runs) == 1
    assert made.runs[0].numbers.nbytes == 4000


@given(st.lists(names, unique=True))
def test_groups_are_sorted_runs(listed):
    runs = group(listed)
    assert sorted(FrameNames(runs)) == sorted(listed)
    keys = [(run.head, run.width, run.suffix) for run in runs]
    assert keys == sorted(set(keys))
    assert all(run.numbers.tolist() == sorted(run.numbers.tolist()) for run in runs)


@given(
    st.lists(st.integers(0, 99999), unique=True, min_size=1),
    st.sampled_from(["a_00001.JPG", "a_0000x.jpg", "b_00001.jpg", "a_1.jpg", "é_00001.jpg"]),
)
def test_one_odd_name_among_uniform_ones_is_kept_apart(numbers, odd):
    listed = [f"a_{number:05d}.jpg" for number in numbers]
    runs = group(listed)
    assert (runs[0].numbers.tolist(), len(runs)) == (sorted(numbers), 1)
    runs = group([*listed, odd])
    assert len(runs) == 2
    assert sorted(FrameNames(runs)) == sorted([*listed, odd])


def test_digest_tells_names_apart():
    def digest(*listed):
        return FrameNames.of(listed).digest()

    assert digest("a_1.jpg", "a_2.jpg") == digest("a_1.jpg", "a_2.jpg")
    others = [
        ("a_1.jpg",),
        ("a_1.jpg", "a_3.jpg"),
        ("a_01.jpg", "a_02.jpg"),
        ("b_1.jpg", "b_2.jpg"),
    ]
    assert len({digest(*listed) for listed in [("a_1.jpg", "a_2.jpg"), *others]}) == 5

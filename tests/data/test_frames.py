"""The one listing of a tracklet's frames, and how their names are kept."""

import os
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reid.data.frames import folders_with_frames, list_folder, natural_order
from reid.data.tracklet import FrameNames
from reid.errors import UserError

text = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), max_size=12)
numbered = st.tuples(
    st.sampled_from(["f", "F", "frame (", "0001_", "a-"]),
    st.integers(0, 12).map(str) | st.integers(0, 12).map("{:05d}".format) | st.just("9" * 20),
    st.sampled_from([".jpg", ".JPG", ".jpeg", ").jpg", "_crop.jpg", "_2.jpg"]),
).map("".join)


@pytest.mark.parametrize(
    "names",
    [
        "f1.jpg f2.JPG f3.jpeg F4.jpg",
        "0001.jpg 0002.jpg 3.jpg 4.jpg",
        "9999999999.jpg 10000000000.jpg",
        "frame(1).jpg frame(2).jpg frame(10).jpg",
        "frame_1_crop.jpg frame_2_crop.jpg frame_10_crop.jpg",
        "f1_9.jpg f1_10.jpg f2_1.jpg",
    ],
)
def test_frames_are_in_the_order_of_time_whatever_their_spelling(
    tmp_path: Path, names: str
) -> None:
    for name in random.Random(1).sample(names.split(), len(names.split())):
        (tmp_path / name).write_bytes(b"x")
    assert list(list_folder(tmp_path, check_sizes=True).frames) == names.split()


def slow_key(name: str) -> list[tuple[int, int, str]]:
    """Oracle: character by character; digits of a run stand for their number."""
    parts: list[tuple[int, int, str]] = []
    number = ""
    for letter in f"{name}\0":
        if letter in "0123456789":
            number += letter
            continue
        if number:
            parts.append((0, int(number), ""))
            number = ""
        parts += [(1, 0, folded) for folded in letter.casefold()]
    return parts


@given(st.lists(numbered, unique=True))
def test_order_is_that_of_the_oracle(names: list[str]) -> None:
    expected = sorted(sorted(names), key=slow_key)
    assert natural_order(names) == expected
    assert natural_order(names[::-1]) == expected


@given(st.lists(text, unique=True))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    assert sorted(natural_order(names)) == sorted(names)


@given(st.lists(text | numbered))
@example(["a", "ab", "a"])
@example([".jpg", "jpg.jpg", ".jpg.jpg"])
def test_stored_names_are_the_names(names: list[str]) -> None:
    stored = FrameNames.of(names)
    assert list(stored) == names
    assert [stored[place] for place in range(len(stored))] == names
    assert (stored[1:], stored == names, len(stored)) == (names[1:], True, len(names))
    assert list(pickle.loads(pickle.dumps(stored))) == names
    assert stored.digest() == FrameNames.of(list(stored)).digest()
    assert stored != [*names, "x"]


@given(st.lists(numbered, min_size=1), st.lists(numbered, min_size=1))
def test_other_names_have_another_digest(one: list[str], other: list[str]) -> None:
    assert (FrameNames.of(one).digest() == FrameNames.of(other).digest()) == (one == other)


OF_SYSTEMS = ["._1.jpg", ".DS_Store", ".ipynb_checkpoints", "Thumbs.db", "thumbs.db", "ehthumbs.db",
              "Desktop.ini", "Icon\r", "@eaDir", "__MACOSX", "lost+found"]  # fmt: skip


def test_what_is_no_frame_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "2.JPG").write_bytes(b"xx")
    (tmp_path / "1.jpeg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("2.JPG")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    for name in ("a.png", "empty.jpg"):
        (tmp_path / name).touch()
    for name in ("deeper", "x.jpg"):
        (tmp_path / name).mkdir()
    for name in OF_SYSTEMS:
        (tmp_path / name).touch()
    listing = list_folder(tmp_path, check_sizes=True)
    assert listing.frames == {"1.jpeg": 1, "2.JPG": 2, "link.jpg": 2}
    ignored, folder = "of the system, ignored", "folder inside a tracklet folder"
    special = "not a file, or a broken link"
    assert listing.problems == {
        **dict.fromkeys(OF_SYSTEMS, ignored),
        "deeper": folder,
        "x.jpg": folder,
        "a.png": "not a .jpg file",
        "pipe.jpg": special,
        "broken.jpg": special,
        "empty.jpg": "zero bytes",
    }
    unseen = list_folder(tmp_path, check_sizes=False)
    assert list(unseen.frames) == ["1.jpeg", "2.JPG", "empty.jpg", "link.jpg"]
    assert unseen.modified == tmp_path.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"a\.png: cannot be listed \(Not a directory\)"):
        list_folder(tmp_path / "a.png", check_sizes=False)


def test_folders_with_frames_follow_links_and_leave_out_those_of_the_system(tmp_path: Path) -> None:
    for folder in ("t10", "t2", "group/t1", "__MACOSX/t1", ".cache", "empty"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        if folder != "empty":
            (tmp_path / "data" / folder / "1.jpg").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.jpg").write_bytes(b"x")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/group/up").symlink_to(tmp_path / "data")
    root = tmp_path / "data"
    assert list(folders_with_frames(root)) == [
        root / name for name in ("group/t1", "linked", "t2", "t10")
    ]

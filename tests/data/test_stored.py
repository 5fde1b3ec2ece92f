"""The files of an index: the same for equal data, refused when damaged or of other data."""

import os
import re
import shutil
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest

from reid.data import index
from reid.data.stored import (
    check_fresh,
    read_cameras,
    read_split,
    write_split,
)
from reid.data.tracklet import FrameNames, Tracklet
from reid.errors import UserError
from tests.data.layouts import sh
from tests.trees import frame_name, make_tree, write_frame

EMPTY = frame_name(1, 93, camera=1, point=2)
SPLITS = ("train", "A2G", "G2A", "A2A")
TRACKLET = Tracklet(
    *(7, "t", "train/7/t", "train", "ground", 0, None),
    *(float("nan"), 20.5, 30.0, FrameNames.of(["f1.jpg", "f2.jpg"])),
    size=99,
)


@pytest.fixture
def tree(tmp_path):
    """With frames that the index leaves out: of another scene, and empty."""
    root = make_tree(tmp_path / "data")
    folder = root / "train/0001/0001_0100"
    write_frame(folder / frame_name(1, 92, camera=0), seed=0)
    (folder / EMPTY).touch()
    return root


@pytest.fixture
def train(tree, tmp_path):
    """The training split of its index."""
    index.build(tree).write(tmp_path / "index")
    return tmp_path / "index/train.parquet"


def copy(root, target):
    """A copy as `cp -r` makes it: other times, other order of creation, and files of the system."""
    for path in sorted(root.rglob("*"), reverse=True):
        place = target / path.relative_to(root)
        (place if path.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(path, place)
            os.utime(place, (1, 1))
    for place in (target, target / "train/0001", target / "train/0001/0001_0100"):
        for name in (".DS_Store", "Thumbs.db", f"._{frame_name(1, 0, camera=0)}"):
            (place / name).write_bytes(b"x")
    return target


def test_equal_data_gives_equal_bytes_whatever_the_place_and_time(tree, train, tmp_path):
    index.build(copy(tree, tmp_path / "elsewhere"), workers=1).write(tmp_path / "other")
    for split in SPLITS:
        one, other = (folder / f"{split}.parquet" for folder in (train.parent, tmp_path / "other"))
        assert one.read_bytes() == other.read_bytes()


def test_equal_data_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / "train.parquet"
    write_split(path, [TRACKLET], cameras=("one", "two"))
    assert read_cameras(path) == ("one", "two")
    os.utime(path, (1, 1))
    write_split(path, [TRACKLET], cameras=("one", "two"))
    assert path.stat().st_mtime == 1
    write_split(path, [replace(TRACKLET, size=1)], cameras=("one", "two"))
    assert path.stat().st_mtime > 1


def test_a_flipped_bit_of_any_column_is_an_error(train):
    content, file = train.read_bytes(), pq.ParquetFile(train).metadata.row_group(0)
    for number in range(file.num_columns):
        column = file.column(number)
        place = column.data_page_offset + column.total_compressed_size - 1
        train.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if column.path_in_schema not in ("capture_point", "frame_count"):
            with pytest.raises(UserError, match="CRC"):
                read_split(train)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "train.parquet"
    for read in (read_split, read_cameras):
        path.unlink(missing_ok=True)
        with pytest.raises(UserError, match="does not exist: run `reid index`"):
            read(path)
        path.write_bytes(b"PAR1 nothing")
        with pytest.raises(UserError, match=r"is not an index .*run `reid index` again"):
            read(path)
        pd.DataFrame({"other": [1]}).to_parquet(path)
        with pytest.raises(UserError, match=r"of this version: run `reid index` again"):
            read(path)


FOLDER, FRAME = "train/0001/0001_0000", frame_name(1, 1, camera=0)
CHANGES = [
    ("true", None),
    ("echo x > notes.txt", None),
    ("touch -d 2001-01-01 .", None),
    ("echo x > x.jpg", "(1 frame more)"),
    ("echo x > a.jpg; echo x > b.jpg", "(2 frames more)"),
    (f"rm {FRAME}", "(1 frame fewer)"),
    (f"mv {FRAME} x.jpg", "(1 frame more, 1 frame fewer)"),
    (f"echo x > new; mv new {FRAME}", "(frames of other sizes)"),  # as rsync replaces a file
    (f"cd ../0001_0100; echo x > new; mv new {EMPTY}", "(1 frame more)"),
    ("rm -r $PWD", "(it is gone)"),
]


@pytest.mark.parametrize("copied", [False, True], ids=["in place", "copied"])
@pytest.mark.parametrize(("command", "message"), CHANGES)
def test_other_frames_are_refused_and_other_circumstances_are_not(
    tree, train, tmp_path, command, message, copied
):
    root = copy(tree, tmp_path / "copy") if copied else tree
    sh(root / FOLDER, command)
    if message is None:
        check_fresh(root, train)
    else:
        with pytest.raises(UserError, match=re.escape(message)) as raised:
            check_fresh(root, train)
        assert str(raised.value).endswith("run `reid index` again")


def test_a_frame_overwritten_in_place_is_seen_only_without_times(tree, train, monkeypatch):
    sh(tree / FOLDER, f"echo x > {FRAME}")
    with monkeypatch.context() as patch:
        patch.setattr("reid.data.stored.list_folder", None)  # nothing is listed
        check_fresh(tree, train)
    (train.parent / "times.parquet").unlink()
    with pytest.raises(UserError, match=r"0001_0000 changed after .* \(frames of other sizes\)"):
        check_fresh(tree, train)


def test_times_of_another_index_are_not_believed(tree, train):
    before = train.read_bytes()
    write_frame(tree / FOLDER / frame_name(1, 9, camera=0), seed=1)
    index.build(tree).write(train.parent)
    check_fresh(tree, train)
    train.write_bytes(before)
    with pytest.raises(UserError, match="1 frame more"):
        check_fresh(tree, train)
    (train.parent / "times.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="1 frame more"):
        check_fresh(tree, train)


def test_without_sizes_names_are_compared(tree, tmp_path):
    index.build(tree, check_sizes=False).write(tmp_path / "index")
    path = tmp_path / "index/train.parquet"
    root = copy(tree, tmp_path / "copy")
    (root / FOLDER / FRAME).write_bytes(b"other")
    check_fresh(root, path)
    (root / FOLDER / FRAME).unlink()
    with pytest.raises(UserError, match="1 frame fewer"):
        check_fresh(root, path)
    shutil.rmtree(root)
    with pytest.raises(UserError, match=r"dataset\.root"):
        check_fresh(root, path)

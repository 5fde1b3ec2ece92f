"""Where a frame, or a file of a pack, is no regular file it is refused before it is opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reid.config import Clip
from reid.data import check, index, pack, stored
from reid.data.dataset import TrackletDataset
from reid.data.lists import read_damaged
from reid.data.manifest import find_manifest
from reid.data.packed import Packed, stage
from reid.errors import UserError
from reid.features.features import read_features
from reid.files import read_json, read_yaml
from reid.model.weights import load, read_tensors
from reid.retrieval import submission
from reid.train.common import load_tensors
from tests.data.layouts import make_mars
from tests.trees import make_tree


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "named pipe": os.mkfifo,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "sparse": sparse,
}


@pytest.fixture(params=SPECIAL)
def replace(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Replaces a file by something else, after indexing."""

    def change(path: Path) -> None:
        path.unlink()
        SPECIAL[request.param](path)

    return change


def test_a_frame(tmp_path: Path, replace: Callable[[Path], None]) -> None:
    tree = make_tree(tmp_path / "data", frames=2)
    train = index.build(tree).splits["train"]
    path = f"{train[1].path}/{train[1].frames[1]}"
    replace(tree / path)
    (damage,) = check.damages(check.inspect(train, tree, tmp_path / "parts"), train).items()
    assert damage == (path, "cannot be read (not a regular file of at most 64 MiB)")
    with pytest.raises(UserError, match=rf"{path} cannot be read .not a regular file"):
        pack.pack(train, tree, tmp_path / "pack")
    with pytest.raises(UserError, match=rf"{path} cannot be read .not a regular file"):
        TrackletDataset(train, tree, clip=Clip(frames=2, height=8, width=4), train=False)[1]


@pytest.mark.parametrize("name", ["00000.tar", "00000.parquet", "pack.json"])
def test_a_file_of_a_pack(tmp_path: Path, replace: Callable[[Path], None], name: str) -> None:
    tree = make_tree(tmp_path / "data", frames=2)
    train = index.build(tree).splits["train"]
    pack.pack(train, tree, tmp_path / "pack")
    replace(tmp_path / "pack" / name)
    with pytest.raises(UserError, match=r"is not what was packed|is damaged|no finished pack"):
        Packed(tmp_path / "pack", train)
    if name == "pack.json":
        with pytest.raises(UserError, match="no finished pack"):
            stage(tmp_path / "pack", tmp_path / "node")


READERS: dict[str, Callable[[Path], object]] = {
    "read_json": read_json,
    "read_yaml": read_yaml,
    "manifest": find_manifest,
    "submission": lambda path: submission.read(path, {}),
    "index": stored.read_split,
    "features": lambda path: read_features(path, rows=1, flip_tta=False),
    "weights of a stage": lambda path: load_tensors(path, made_by="reid train stage1"),
    "CLIP weights": lambda path: load(str(path)),
    "checkpoint to import": read_tensors,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_any_file(
    tmp_path: Path, replace: Callable[[Path], None], reader: Callable[[Path], object]
) -> None:
    (path := tmp_path / "x.csv").touch()
    replace(path)
    with pytest.raises((UserError, OSError), match=r"not a regular file of at most .* MiB"):
        reader(path)


@pytest.mark.parametrize("name", ["train_name.txt", "tracks_train_info.mat"])
def test_a_list_of_a_layout(tmp_path: Path, replace: Callable[[Path], None], name: str) -> None:
    root = make_mars(tmp_path / "data")
    replace(root / "info" / name)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(not a regular file"):
        index.build(root, layout="mars", protocols=("ALL",))


def test_a_list_of_damaged_frames(tmp_path: Path, replace: Callable[[Path], None]) -> None:
    path = tmp_path / "damaged.csv"
    path.touch()
    replace(path)
    with pytest.raises(UserError, match=r"dataset\.damaged: .*damaged\.csv"):
        read_damaged(path)


def test_a_frame_that_only_one_decoder_reads_is_noted(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "data", frames=2)
    train = index.build(tree).splits["train"]
    path = f"{train[1].path}/{train[1].frames[1]}"
    data = bytearray((tree / path).read_bytes())
    data[2] = 85  # of the marker after the first; libjpeg looks for the next one
    (tree / path).write_bytes(data)
    seen = check.inspect(train, tree, tmp_path / "parts")
    assert check.damages(seen, train) == {}
    (note,) = check.notes(seen, train, least_height=1)
    assert note[0] == path
    assert "mode unknown" in note[1]

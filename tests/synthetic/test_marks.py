"""`reid demo-data` and `reid demo-weights` replace only what they wrote."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from reid.claim import MARK
from reid.config import Demo
from reid.errors import UserError
from reid.synthetic import benchmark, pretrain

DEMO = Demo(train_identities=1, test_identities=1, frames=1, ground_tracklets=1, capture_points=1)
OTHER = DEMO.model_copy(update={"seed": 8})


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    benchmark.render(DEMO, root, workers=1)
    return root


HARM: dict[str, Callable[[Path, Path], object]] = {
    "foreign file": lambda root, _: (root / "mine.jpg").touch(),
    "foreign temporary": lambda root, _: (root / "train" / ".mine.jpg.1.tmp").touch(),
    "foreign folder": lambda root, _: shutil.copytree(root / "train", root / "train" / "9"),
    "foreign crop": lambda _, crop: (crop.parent / "mine.jpg").touch(),
    "changed crop": lambda _, crop: crop.write_bytes(b"a photograph under our name"),
    "renamed crop": lambda _, crop: crop.rename(crop.parent / "mine.jpg"),
    "lost crop": lambda _, crop: crop.unlink(),
    "lost tracklet": lambda _, crop: shutil.rmtree(crop.parent),
    "lost mark": lambda root, _: (root / MARK).unlink(),
    "damaged mark": lambda root, _: (root / MARK).write_text("{"),
    "short mark": lambda root, _: (root / MARK).write_text('{"settings": {}}'),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_render_that_was_changed_is_left_as_it_is(
    rendered: Path, tmp_path: Path, harm: str
) -> None:
    root = shutil.copytree(rendered, tmp_path / "data")
    HARM[harm](root, min((root / "train").rglob("*.jpg")))
    before = contents(tmp_path)
    for demo in (DEMO, OTHER):
        with pytest.raises(UserError, match=str(root)):
            benchmark.render(demo, root, workers=1)
    assert contents(tmp_path) == before


def test_a_link_stays_and_the_render_behind_it_is_replaced(rendered: Path, tmp_path: Path) -> None:
    target = shutil.copytree(rendered, tmp_path / "large disk" / "data")
    link = tmp_path / "data"
    link.symlink_to(target)
    benchmark.render(OTHER, link, workers=1)
    assert link.is_symlink()
    assert contents(rendered).keys() != contents(target).keys()


@pytest.mark.parametrize("name", [".data.rendering", ".data.replaced"])
def test_only_our_left_overs_are_removed(rendered: Path, tmp_path: Path, name: str) -> None:
    mine = shutil.copytree(rendered, tmp_path / name) / "train" / "mine.jpg"
    mine.write_bytes(b"the user's")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"mine\.jpg"):
        benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert contents(tmp_path) == before
    mine.unlink()
    benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "text": lambda file: file.write_text("the user's"),
    "no metadata": lambda file: save_file({"x": np.zeros(3)}, file),
    "other metadata": lambda file: save_file({"x": np.zeros(3)}, file, {"made_by": "me"}),
    "link to nothing": lambda file: file.symlink_to("absent"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_the_user_are_never_overwritten(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "clip.safetensors"
    WEIGHTS[kind](file)
    before = contents(tmp_path), file.lstat()
    with pytest.raises(UserError, match="not made by `reid demo-weights`"):
        pretrain.pretrain(Demo(captions=4, clip_epochs=1), "vit_b16", file)
    assert (contents(tmp_path), file.lstat()) == before

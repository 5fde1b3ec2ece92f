"""`reid demo-data` and `reid demo-weights` replace only what they wrote."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from reid.config import Demo
from reid.errors import UserError
from reid.synthetic import benchmark, pretrain
from reid.synthetic.marks import MANIFEST, WEIGHTS_MARK, demand_tiny_clip

DEMO = Demo(train_identities=1, test_identities=1, frames=1, ground_tracklets=1, capture_points=1)
OTHER = DEMO.model_copy(update={"seed": 8})
NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", ".."))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    benchmark.render(DEMO, root, workers=1)
    return root


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_foreign_or_changed_file_is_refused_and_nothing_changes(
    rendered: Path, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = shutil.copytree(rendered, Path(folder) / "data")
        below = sorted(path for path in root.rglob("*") if path.name != MANIFEST)
        place = data.draw(st.sampled_from([root, *below]))
        file = place / data.draw(NAMES | st.just("mine.jpg")) if place.is_dir() else place
        if file.is_dir() or file.name.endswith(".tmp"):
            return
        file.write_bytes(b"the user's")
        before = contents(root)
        with pytest.raises(UserError):
            benchmark.render(OTHER, root, workers=1)
        assert contents(root) == before
        assert [path.name for path in Path(folder).iterdir()] == ["data"]


HARM: dict[str, Callable[[Path, Path], object]] = {
    "changed crop": lambda _, crop: crop.write_bytes(b"a photograph under our name"),
    "lost crop": lambda _, crop: crop.unlink(),
    "lost tracklet": lambda _, crop: shutil.rmtree(crop.parent),
    "no mark": lambda root, _: (root / MANIFEST).unlink(),
    "damaged mark": lambda root, _: (root / MANIFEST).write_text("{"),
    "short mark": lambda root, _: (root / MANIFEST).write_text('{"settings": {}}'),
    "real dataset": lambda root, _: shutil.copytree(root / "train" / "0001", root / "train" / "9"),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("demo", [DEMO, OTHER])
def test_a_render_that_was_changed_is_left_as_it_is(
    rendered: Path, tmp_path: Path, harm: str, demo: Demo
) -> None:
    root = shutil.copytree(rendered, tmp_path / "data")
    HARM[harm](root, min(root.rglob("*.jpg")))
    before = contents(root)
    with pytest.raises(UserError, match=str(root)):
        benchmark.render(demo, root, workers=1)
    assert contents(root) == before


def test_a_link_stays_and_the_render_behind_it_is_replaced(rendered: Path, tmp_path: Path) -> None:
    target = shutil.copytree(rendered, tmp_path / "large disk" / "data")
    link = tmp_path / "data"
    link.symlink_to(target)
    before = contents(target)
    benchmark.render(OTHER, link, workers=1)
    assert link.is_symlink()
    assert before.keys() != contents(target).keys()
    (target / "mine.jpg").write_bytes(b"the user's")
    with pytest.raises(UserError, match=r"mine\.jpg"):
        benchmark.render(DEMO, link, workers=1)


@pytest.mark.parametrize("name", [".data.rendering", ".data.replaced"])
def test_only_our_left_overs_are_removed(rendered: Path, tmp_path: Path, name: str) -> None:
    left_over = shutil.copytree(rendered, tmp_path / name)
    (left_over / "train" / "mine.jpg").write_bytes(b"the user's")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"mine\.jpg"):
        benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert contents(tmp_path) == before
    (left_over / "train" / "mine.jpg").unlink()
    benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@given(content=st.binary(max_size=200))
def test_weights_of_the_user_are_never_overwritten(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ViT-B-16.pt"
        file.write_bytes(content)
        with pytest.raises(UserError, match="not made by `reid demo-weights`"):
            pretrain.pretrain(Demo(captions=4, clip_epochs=1), "vit_b16", file)
        assert file.read_bytes() == content


def test_only_marked_safetensors_are_tiny_clips(tmp_path: Path) -> None:
    file = tmp_path / "clip.safetensors"
    demand_tiny_clip(file)
    for metadata in (None, {"made_by": "me"}):
        save_file({"x": np.zeros(3)}, file, metadata=metadata)
        with pytest.raises(UserError, match="not made by"):
            demand_tiny_clip(file)
    save_file({"x": np.zeros(3)}, file, metadata=WEIGHTS_MARK)
    demand_tiny_clip(file)
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "dangling", tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="not made by"):
            demand_tiny_clip(other)

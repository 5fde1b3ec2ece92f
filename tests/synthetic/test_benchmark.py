"""The rendered dataset: deterministic, in the layout that the index reads, whole or absent."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from reid.claim import MARK
from reid.config import Demo
from reid.data import index
from reid.errors import UserError
from reid.synthetic import benchmark, pretrain
from reid.synthetic.captions import draw_captioned

DEMO = Demo(
    seed=3, train_identities=2, test_identities=3, frames=2, ground_tracklets=2, capture_points=3
)
SMALL = Demo(train_identities=1, test_identities=1, frames=1, ground_tracklets=1, capture_points=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    benchmark.render(DEMO, folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "data"
    benchmark.render(SMALL, folder, workers=1)
    return folder


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    files = (path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_equal_seeds_give_equal_bytes_for_any_number_of_processes(
    root: Path, tmp_path: Path
) -> None:
    benchmark.render(DEMO, tmp_path / "again", workers=2)
    assert contents(root) == contents(tmp_path / "again")
    benchmark.render(DEMO.model_copy(update={"seed": 4}), tmp_path / "other", workers=1)
    crops = (set(contents(folder, "*.jpg").values()) for folder in (root, tmp_path / "other"))
    assert set.isdisjoint(*crops)


def test_the_index_reads_every_file_with_the_views_of_the_protocols(root: Path) -> None:
    read = index.build(root)
    assert not read.rejected
    counts: Counter[tuple[str, str, int]] = Counter()
    people: dict[tuple[str, str], set[int]] = {}
    for split, tracklets in read.splits.items():
        for tracklet in tracklets:
            assert len(tracklet.frames) == DEMO.frames
            assert (tracklet.capture_point is None) == (tracklet.view == "ground")
            counts[split, tracklet.subset, tracklet.camera] += 1
            people.setdefault((split, tracklet.subset), set()).add(tracklet.identity)
    # Cameras: ground, and the drone of either session.
    train, test = DEMO.train_identities, DEMO.test_identities
    ground, aerial = DEMO.ground_tracklets, DEMO.capture_points
    assert counts == {
        ("train", "train", 0): train * ground,
        **{("train", "train", camera): train * aerial for camera in (1, 2)},
        **{("A2G", "query", camera): test * aerial for camera in (1, 2)},
        ("A2G", "gallery", 0): test * ground,
        ("G2A", "query", 0): test * ground,
        **{("G2A", "gallery", camera): test * aerial for camera in (1, 2)},
        ("A2A", "query", 1): test * aerial,
        ("A2A", "gallery", 2): test * aerial,
    }
    trained = people.pop(("train", "train"))
    (tested,) = set(map(frozenset, people.values()))
    assert (len(trained), len(tested), trained & tested) == (train, test, set())
    names = [path.name.split("_") for path in root.rglob("*.jpg")]
    assert {fields[-2] for fields in names if len(fields) == 24} == {"1", "S1", "2", "S2"}


def test_the_captioned_people_are_others_and_some_change_clothes() -> None:
    ours = [benchmark.person_of(Demo(), pid) for pid in range(1, 41)]
    theirs = {draw_captioned(number, DEMO.seed)[0] for number in range(200)}
    assert (len(set(ours)), len(theirs)) == (40, 200)
    assert not set(ours) & theirs
    assert 8 <= sum(person.outfits[0] != person.outfits[1] for person in ours) <= 32


def test_a_failed_render_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_identity = benchmark.render_identity

    def failing(demo: Demo, root: Path, pid: int) -> dict[str, str]:
        if pid == 2:
            raise OSError("disk full")
        return render_identity(demo, root, pid)

    monkeypatch.setattr(benchmark, "render_identity", failing)
    with pytest.raises(OSError, match="disk full"):
        benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_render_is_kept_and_one_of_other_settings_replaced_also_behind_a_link(
    small: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(small, tmp_path / "large disk" / "data")
    (tmp_path / "data").symlink_to(root)
    before = (root / "train").stat().st_mtime_ns
    benchmark.render(SMALL.model_copy(update={"captions": 1}), tmp_path / "data", workers=1)
    assert (root / "train").stat().st_mtime_ns == before
    more = SMALL.model_copy(update={"ground_tracklets": 2})
    benchmark.render(more, tmp_path / "data", workers=1)
    assert len(list((root / "train").glob("*/*"))) == 2 + 2 * SMALL.capture_points
    assert (tmp_path / "data").is_symlink()
    assert [path.name for path in root.parent.iterdir()] == ["data"]


HARM: dict[str, Callable[[Path, Path], object]] = {
    "foreign file": lambda root, _: (root / "mine.jpg").touch(),
    "foreign temporary": lambda root, _: (root / "train" / ".mine.jpg.1.tmp").touch(),
    "foreign folder": lambda root, _: shutil.copytree(root / "train", root / "train" / "9"),
    "foreign crop": lambda _, crop: (crop.parent / "mine.jpg").touch(),
    "changed crop": lambda _, crop: crop.write_bytes(b"a photograph under our name"),
    "renamed crop": lambda _, crop: crop.rename(crop.parent / "mine.jpg"),
    "lost tracklet": lambda _, crop: shutil.rmtree(crop.parent),
    "lost mark": lambda root, _: (root / MARK).unlink(),
    "damaged mark": lambda root, _: (root / MARK).write_text("{"),
    "mark of another kind": lambda root, _: (root / MARK).write_text('{"kind": "pack"}'),
    "mark of an unfinished render": lambda root, _: (root / MARK).write_text(
        '{"kind": "demo data", "of": ""}'
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_render_that_was_changed_is_left_unchanged(
    small: Path, tmp_path: Path, harm: str
) -> None:
    root = shutil.copytree(small, tmp_path / "data")
    HARM[harm](root, min((root / "train").rglob("*.jpg")))
    before = contents(tmp_path)
    for demo in (SMALL, DEMO):
        with pytest.raises(UserError, match=str(root)):
            benchmark.render(demo, root, workers=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [".data.rendering", ".data.replaced"])
def test_only_our_left_overs_are_removed(small: Path, tmp_path: Path, name: str) -> None:
    mine = shutil.copytree(small, tmp_path / name) / "train" / "mine.jpg"
    mine.write_bytes(b"the user's")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"mine\.jpg"):
        benchmark.render(SMALL, tmp_path / "data", workers=1)
    assert contents(tmp_path) == before
    mine.unlink()
    benchmark.render(SMALL, tmp_path / "data", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "text": lambda file: file.write_text("the user's"),
    "other metadata": lambda file: save_file({"x": np.zeros(3)}, file, {"made_by": "me"}),
    "no metadata": lambda file: save_file({"x": np.zeros(3)}, file),
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


def test_the_contact_sheet_shows_the_people(root: Path, tmp_path: Path) -> None:
    benchmark.contact_sheet(root, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
        assert sheet.size == (8 * benchmark.CELL[0], 5 * benchmark.CELL[1])  # tracklets, people
        assert colors is not None
        assert len(colors) > 5000
    with pytest.raises(UserError, match="run `reid demo-data` first"):
        benchmark.contact_sheet(tmp_path, tmp_path / "none.png")

"""The rendered dataset: deterministic, in the layout that the index reads, whole or absent."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from reid.config import Demo
from reid.data import index
from reid.errors import UserError
from reid.synthetic import benchmark
from reid.synthetic.captions import draw_captioned

DEMO = Demo(
    seed=3, train_identities=2, test_identities=3, frames=2, ground_tracklets=2, capture_points=3
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    benchmark.render(DEMO, folder, workers=1)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


def test_equal_seeds_give_equal_bytes_for_any_number_of_processes(
    root: Path, tmp_path: Path
) -> None:
    benchmark.render(DEMO, tmp_path / "again", workers=2)
    assert contents(root) == contents(tmp_path / "again")
    benchmark.render(DEMO.model_copy(update={"seed": 4}), tmp_path / "other", workers=1)
    assert not set(contents(root).values()) & set(contents(tmp_path / "other").values())


def test_the_index_reads_every_file_with_the_views_of_the_protocols(root: Path) -> None:
    read = index.build(root)
    assert not read.rejected
    counts: Counter[tuple[str, str, int]] = Counter()
    for split, tracklets in read.splits.items():
        for tracklet in tracklets:
            assert len(tracklet.frames) == DEMO.frames
            assert (tracklet.capture_point is None) == (tracklet.view == "ground")
            counts[split, tracklet.subset, tracklet.camera] += 1
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
    trained = {tracklet.identity for tracklet in read.splits["train"]}
    for protocol in ("A2G", "G2A", "A2A"):
        tracklets = read.splits[protocol]
        sides = [{t.identity for t in tracklets if t.subset == s} for s in ("query", "gallery")]
        assert sides[0] == sides[1]
        assert len(sides[0]) == test
        assert not sides[0] & trained
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


def test_a_complete_render_is_kept_and_one_of_other_settings_replaced(tmp_path: Path) -> None:
    root, small = tmp_path / "data", Demo(train_identities=1, test_identities=1, frames=1)
    benchmark.render(small, root, workers=1)
    before = (root / "train").stat().st_mtime_ns
    benchmark.render(small.model_copy(update={"captions": 1}), root, workers=1)
    assert (root / "train").stat().st_mtime_ns == before
    benchmark.render(small.model_copy(update={"ground_tracklets": 1}), root, workers=1)
    assert len(list((root / "train").glob("*/*"))) == 1 + 2 * small.capture_points
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_contact_sheet_shows_the_people(root: Path, tmp_path: Path) -> None:
    benchmark.contact_sheet(root, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
        assert sheet.size == (8 * benchmark.CELL[0], 5 * benchmark.CELL[1])  # tracklets, people
        assert colors is not None
        assert len(colors) > 5000
    with pytest.raises(UserError, match="run `reid demo-data` first"):
        benchmark.contact_sheet(tmp_path, tmp_path / "none.png")

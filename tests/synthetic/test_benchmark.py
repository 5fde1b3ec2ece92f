"""The rendered dataset: deterministic, in the layout that the index reads, whole or absent."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from reid.config import Demo
from reid.data import index
from reid.errors import UserError
from reid.synthetic import benchmark
from reid.synthetic.captions import draw_captioned
from reid.synthetic.sheet import CELL

DEMO = Demo(
    seed=3,
    train_identities=2,
    test_identities=3,
    frames=2,
    ground_tracklets=2,
    capture_points=3,
    changed_share=0.5,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    benchmark.render(DEMO, folder, workers=1)
    return folder


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.jpg")
    }


def test_equal_seeds_give_equal_bytes_for_any_number_of_processes(
    root: Path, tmp_path: Path
) -> None:
    benchmark.render(DEMO, tmp_path / "again", workers=2)
    assert digests(root) == digests(tmp_path / "again")
    benchmark.render(DEMO.model_copy(update={"seed": 4}), tmp_path / "other", workers=1)
    assert not set(digests(root).values()) & set(digests(tmp_path / "other").values())


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
    trained = {tracklet.identity for tracklet in read.splits.pop("train")}
    for tracklets in read.splits.values():
        sides = [{t.identity for t in tracklets if t.subset == s} for s in ("query", "gallery")]
        assert sides[0] == sides[1]
        assert len(sides[0]) == test
        assert not sides[0] & trained


def test_both_spellings_of_the_session_occur(root: Path) -> None:
    names = [path.name.split("_") for path in root.rglob("*.jpg")]
    spelled = Counter(fields[-2] for fields in names if len(fields) == 24)
    assert set(spelled) == {"1", "S1", "2", "S2"}


def test_the_captioned_people_are_others_and_some_change_clothes() -> None:
    ours = [benchmark.person_of(Demo(), pid) for pid in range(1, 41)]
    theirs = {draw_captioned(number, DEMO.seed)[0] for number in range(200)}
    assert (len(set(ours)), len(theirs)) == (40, 200)
    assert not set(ours) & theirs
    assert 8 <= sum(person.outfits[0] != person.outfits[1] for person in ours) <= 32


def test_a_failed_render_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_identity = benchmark.render_identity

    def failing(demo: Demo, root: Path, pid: int) -> int:
        if pid == 2:
            raise OSError("disk full")
        return render_identity(demo, root, pid)

    monkeypatch.setattr(benchmark, "render_identity", failing)
    with pytest.raises(OSError, match="disk full"):
        benchmark.render(DEMO, tmp_path / "data", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_render_is_kept_and_one_of_other_settings_replaced(tmp_path: Path) -> None:
    root = tmp_path / "data"
    small = DEMO.model_copy(update={"train_identities": 1, "test_identities": 1, "frames": 1})
    benchmark.render(small, root, workers=1)
    before = (root / "train").stat().st_mtime_ns
    benchmark.render(small, root, workers=1)
    assert (root / "train").stat().st_mtime_ns == before
    benchmark.render(small.model_copy(update={"ground_tracklets": 1}), root, workers=1)
    assert len(list((root / "train").glob("*/*"))) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_contact_sheet_shows_the_people(root: Path, tmp_path: Path) -> None:
    benchmark.contact_sheet(root, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
        assert sheet.size == (8 * CELL[0], 5 * CELL[1])  # tracklets, people
        assert colors is not None
        assert len(colors) > 5000


def test_no_contact_sheet_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `reid demo-data` first"):
        benchmark.contact_sheet(tmp_path, tmp_path / "sheet.png")

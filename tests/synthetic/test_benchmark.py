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


def test_another_seed_gives_other_people(root: Path, tmp_path: Path) -> None:
    other = DEMO.model_copy(update={"seed": 4})
    benchmark.render(other, tmp_path / "other", workers=1)
    assert not set(digests(root).values()) & set(digests(tmp_path / "other").values())


def test_the_index_reads_every_file(root: Path) -> None:
    found = index.build(root)
    assert not found.rejected
    assert all(len(t.frames) == DEMO.frames for split in found.splits.values() for t in split)
    aerial, ground = DEMO.capture_points * 2, DEMO.ground_tracklets
    people = DEMO.test_identities
    counts = Counter(
        (split, tracklet.subset)
        for split, tracklets in found.splits.items()
        for tracklet in tracklets
    )
    assert counts == {
        ("train", "train"): DEMO.train_identities * (aerial + ground),
        ("A2G", "query"): people * aerial,
        ("A2G", "gallery"): people * ground,
        ("G2A", "query"): people * ground,
        ("G2A", "gallery"): people * aerial,
        ("A2A", "query"): people * DEMO.capture_points,
        ("A2A", "gallery"): people * DEMO.capture_points,
    }


def test_views_and_sessions_are_those_of_the_protocols(root: Path) -> None:
    splits = index.build(root).splits
    assert {t.camera for t in splits["train"]} == {0, 1, 2}
    views = {
        (split, subset): {t.camera for t in splits[split] if t.subset == subset}
        for split in ("A2G", "G2A", "A2A")
        for subset in ("query", "gallery")
    }
    assert views == {
        ("A2G", "query"): {1, 2},
        ("A2G", "gallery"): {0},
        ("G2A", "query"): {0},
        ("G2A", "gallery"): {1, 2},
        ("A2A", "query"): {1},
        ("A2A", "gallery"): {2},
    }
    for tracklets in splits.values():
        for tracklet in tracklets:
            assert (tracklet.capture_point is None) == (tracklet.view == "ground")


def test_train_and_test_people_are_disjoint_and_every_query_has_a_match(root: Path) -> None:
    splits = index.build(root).splits
    train = {t.identity for t in splits["train"]}
    for split in ("A2G", "G2A", "A2A"):
        assert not train & {t.identity for t in splits[split]}
        gallery = {(t.identity, t.camera) for t in splits[split] if t.subset == "gallery"}
        for query in (t for t in splits[split] if t.subset == "query"):
            assert {i for i, camera in gallery if camera != query.camera} >= {query.identity}


def test_both_spellings_of_the_session_occur(root: Path) -> None:
    names = [path.name.split("_") for path in root.rglob("*.jpg")]
    spelled = Counter(fields[-2] for fields in names if len(fields) == 24)
    assert set(spelled) == {"1", "S1", "2", "S2"}


def test_the_captioned_people_are_others() -> None:
    ours = {benchmark.person_of(DEMO, pid) for pid in range(1, 41)}
    theirs = {draw_captioned(number, DEMO.seed)[0] for number in range(200)}
    assert (len(ours), len(theirs)) == (40, 200)
    assert not {person.stature for person in ours} & {person.stature for person in theirs}


def test_part_of_the_people_change_clothes() -> None:
    people = [benchmark.person_of(Demo(), pid) for pid in range(1, 41)]
    changed = sum(person.outfits[0] != person.outfits[1] for person in people)
    assert 8 <= changed <= 32


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


def test_a_complete_render_is_kept(root: Path) -> None:
    before = (root / "train").stat().st_mtime_ns
    benchmark.render(DEMO, root, workers=1)
    assert (root / "train").stat().st_mtime_ns == before


def test_a_render_of_other_settings_is_replaced(tmp_path: Path) -> None:
    small = DEMO.model_copy(update={"train_identities": 1, "test_identities": 1, "frames": 1})
    benchmark.render(small, tmp_path / "data", workers=1)
    smaller = small.model_copy(update={"ground_tracklets": 1})
    benchmark.render(smaller, tmp_path / "data", workers=1)
    assert len(list((tmp_path / "data" / "train").glob("*/*"))) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_contact_sheet_shows_the_people(root: Path, tmp_path: Path) -> None:
    benchmark.contact_sheet(root, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
        assert sheet.width > 22 * 60
        assert colors is not None
        assert len(colors) > 5000


def test_no_contact_sheet_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `reid demo-data` first"):
        benchmark.contact_sheet(tmp_path, tmp_path / "sheet.png")

import csv
import json
import math
import os
import shutil

import pytest
import yaml

from reid.cli import main
from reid.config import Dataset
from reid.data import index, summary
from reid.data.stored import write_split
from reid.data.tracklet import FrameNames, Tracklet
from reid.errors import UserError
from tests.trees import EXPERIMENT, frame_name, make_tree, write_frame, write_tracklet


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data")


def reasons(built):
    return {rejected.path: rejected.reason for rejected in built.rejected}


def check(built, root, **options):
    options = Dataset(root=root, **options)
    summary.check_limits(built.splits, built.rejected, options, report=root / "rejected.csv")


def test_every_tracklet_with_its_metadata(tree):
    built = index.build(tree)
    assert not built.rejected
    check(built, tree)
    assert {split: len(found) for split, found in built.splits.items()} == {
        "train": 6,
        "A2G": 6,
        "G2A": 6,
        "A2A": 4,
    }
    tracklet = built.splits["train"][1]
    assert (tracklet.identity, tracklet.name, tracklet.subset) == (1, "0001_0100", "train")
    assert tracklet.path == "train/0001/0001_0100"
    assert (tracklet.view, tracklet.camera, tracklet.session) == ("aerial", 1, 1)
    assert (tracklet.altitude, tracklet.distance, tracklet.angle) == (11.5, 20.0, 30.0)
    assert tuple(tracklet.frames) == tuple(
        frame_name(1, frame, camera=1, point=2, spelling="S") for frame in range(3)
    )


def test_identities_are_ordered_as_integers(tree):
    write_tracklet(tree / "train" / "10" / "t", 10, camera=0)
    write_tracklet(tree / "train" / "9" / "t", 9, camera=0)
    found = [tracklet.identity for tracklet in index.build(tree).splits["train"]]
    assert found == [1, 1, 1, 2, 2, 2, 9, 10]


def test_threads_change_nothing(tree):
    one, many = (index.build(tree, workers=workers) for workers in (1, 4))
    assert str(one) == str(many)


def test_written_index_reads_back(tree, tmp_path):
    (tree / "train" / "0001" / "stray, with a comma.txt").write_text("x")
    built = index.build(tree)
    built.write(tmp_path / "index")
    again = index.Index.read(tmp_path / "index")
    assert str(again) == str(built)  # NaN is not equal to itself
    assert str(index.read_split(tmp_path / "index" / "G2A.parquet")) == str(built.splits["G2A"])


def test_numbered_frames_take_next_to_no_space(tmp_path):
    names = [frame_name(1, frame, camera=0) for frame in range(20_000)]
    frames = FrameNames.of(names)
    tracklet = Tracklet(1, "t", "train/1/t", "train", "ground", 0, None, *[math.nan] * 3, frames)
    write_split(tmp_path / "train.parquet", [tracklet])
    assert (tmp_path / "train.parquet").stat().st_size < len(names)
    assert list(index.read_split(tmp_path / "train.parquet")[0].frames) == names


def test_summary_counts(tree, tmp_path):
    index.build(tree).write(tmp_path)
    counts = json.loads((tmp_path / "summary.json").read_text())
    train = counts["splits"]["train"]["train"]
    assert (train["identities"], train["tracklets"], train["frames"]) == (2, 6, 18)
    assert train["tracklets_by_camera"] == {
        "ground": 2,
        "aerial_session1": 2,
        "aerial_session2": 2,
    }
    assert train["share_with_metadata"] == pytest.approx(4 / 6)
    assert counts["splits"]["A2A"]["query"]["share_with_metadata"] == 1
    assert counts["identities_in_train_and_test"] == []


def test_a_tracklet_in_a_protocol_of_another_view_is_counted(tree, tmp_path):
    write_tracklet(tree / "case1_aerial_to_ground/query/0003/0003_0500", 3, camera=0)
    built = index.build(tree)
    built.write(tmp_path)
    counts = json.loads((tmp_path / "summary.json").read_text())["splits"]
    odd = {split: facts["of_another_view"] for split, facts in counts.items() if split != "train"}
    assert odd == {"A2G": 1, "G2A": 0, "A2A": 0}


def test_unusable_files_are_rejected_with_their_reason(tree):
    person = tree / "train" / "0001"
    tracklet = person / "0001_0100"
    (tracklet / "notes.txt").write_text("x")
    (tracklet / frame_name(1, 90, camera=1, point=2)).touch()
    write_frame(tracklet / frame_name(2, 91, camera=1, point=2), seed=0)
    write_frame(tracklet / frame_name(1, 92, camera=1, point=3), seed=0)
    write_frame(tracklet / frame_name(1, 93, camera=0), seed=0)
    (tracklet / frame_name(1, 94, camera=1, point=2)).symlink_to("nowhere")
    write_frame(tracklet / "deeper" / "x.jpg", seed=0)
    write_frame(person / frame_name(1, 95, camera=0), seed=0)
    write_frame(tree / "train" / "unknown" / "t" / "x.jpg", seed=0)
    (person / "0001_0999").mkdir()
    (tree / "train" / "0099").mkdir()
    found = reasons(index.build(tree))
    base = "train/0001/0001_0100/"
    assert found.pop(base + "notes.txt") == "not a .jpg file"
    assert found.pop(base + frame_name(1, 90, camera=1, point=2)) == "zero bytes"
    assert "identity 2 of the file" in found.pop(base + frame_name(2, 91, camera=1, point=2))
    odd = "differs from the rest of its tracklet"
    assert odd in found.pop(base + frame_name(1, 92, camera=1, point=3))
    assert odd in found.pop(base + frame_name(1, 93, camera=0))
    assert "broken link" in found.pop(base + frame_name(1, 94, camera=1, point=2))
    assert found.pop(base + "deeper/x.jpg") == "folder inside a tracklet folder"
    stray = f"train/0001/{frame_name(1, 95, camera=0)}"
    assert found.pop(stray) == "file outside a tracklet folder"
    assert found.pop("train/unknown/t/x.jpg") == "person folder is not an integer"
    assert found.pop("train/0001/0001_0999") == "empty tracklet"
    assert found.pop("train/0099") == "empty person folder"
    assert not found


def test_what_systems_put_into_folders_is_counted_and_costs_nothing(tree, tmp_path):
    frame = min((tree / "train").rglob("*.jpg"))
    places = [tree / "train", frame.parent.parent, frame.parent]
    junk = [place / name for place in places for name in (".DS_Store", "Thumbs.db", "._a.jpg")]
    for path in junk:
        path.write_bytes(b"x")
    hidden = frame.parent / f".{frame.name}"
    shutil.copy(frame, hidden)
    for place in places:
        (place / ".cache").mkdir()
    before = index.build(tree)
    assert set(reasons(before).values()) == {"of the system, ignored"}
    assert len(before.rejected) == len(junk) + 1 + len(places)
    check(before, tree)
    assert sum(len(tracklet.frames) for tracklet in before.splits["train"]) == 18
    for path in frame.parent.glob("*.jpg"):
        path.unlink()
    assert reasons(index.build(tree))[frame.parent.relative_to(tree).as_posix()] == "empty tracklet"


def test_empty_files_stay_when_sizes_are_not_looked_at(tree):
    (tree / "train" / "0001" / "0001_0100" / frame_name(1, 90, camera=1, point=2)).touch()
    assert len(index.build(tree).rejected) == 1
    assert not index.build(tree, check_sizes=False).rejected


def test_the_minority_of_a_tracklet_is_rejected_even_when_it_comes_first(tree):
    folder = tree / "train" / "0001" / "0001_0100"
    (folder / frame_name(1, 0, camera=1, point=1, spelling="S")).write_bytes(b"x")
    built = index.build(tree)
    tracklet = next(t for t in built.splits["train"] if t.name == "0001_0100")
    assert len(tracklet.frames) == 3
    assert tracklet.altitude == 11.5
    assert len(built.rejected) == 1


def test_progress_tells_folders_and_files_a_second(tree, capsys):
    index.build(tree, quiet=False)
    assert "index: 22/22 folders" in capsys.readouterr().out


def test_names_that_are_not_utf8_are_rejected_and_written(tree, tmp_path):
    bad = os.fsencode(tree / "train" / "0001" / "0001_0100") + b"/\xff.jpg"
    with open(bad, "wb") as opened:  # noqa: PTH123 - a path of bytes
        opened.write(b"x")
    built = index.build(tree)
    built.write(tmp_path / "index")
    with (tmp_path / "index" / "rejected.csv").open() as opened:
        rows = list(csv.reader(opened))
    assert rows == [
        ["path", "reason"],
        ["train/0001/0001_0100/\\udcff.jpg", "file name is not UTF-8"],
    ]


def test_share_of_rejected_files_has_a_limit(tree):
    (tree / "train" / "0001" / "0001_0100" / "notes.txt").write_text("x")
    built = index.build(tree)
    frames = sum(len(t.frames) for split in built.splits.values() for t in split)
    assert summary.rejected_share(built.splits, built.rejected) == pytest.approx(1 / (frames + 1))
    check(built, tree, max_rejected_share=0.1)
    with pytest.raises(UserError, match=r"notes\.txt: not a \.jpg.*rejected\.csv.*max_rejected"):
        check(built, tree)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", "dataset.root"),
        ("train", "train.*dataset.root"),
        ("case2_ground_to_aerial", "query.*protocol G2A"),
        ("case3_aerial_to_aerial/gallery", "gallery.*protocol A2A"),
    ],
)
def test_missing_folders_are_one_clear_error(tree, missing, message):
    shutil.rmtree(tree / missing)
    with pytest.raises(UserError, match=message):
        index.build(tree)


def test_only_the_protocols_asked_for_are_read(tree):
    shutil.rmtree(tree / "case2_ground_to_aerial")
    assert set(index.build(tree, protocols=("A2G",)).splits) == {"train", "A2G"}


@pytest.mark.parametrize("part", ["train", "case1_aerial_to_ground/query"])
def test_a_part_without_tracklets_is_an_error(tree, part):
    shutil.rmtree(tree / part)
    (tree / part).mkdir()
    with pytest.raises(UserError, match="holds no tracklet"):
        check(index.build(tree), tree)


def test_two_folders_of_one_identity_are_an_error(tree):
    write_tracklet(tree / "train" / "1" / "t", 1, camera=0)
    with pytest.raises(UserError, match="both identity 1"):
        index.build(tree)


def test_identities_in_train_and_test_are_an_error_unless_allowed(tree):
    shutil.copytree(tree / "train" / "0002", tree / "case1_aerial_to_ground" / "gallery" / "0002")
    built = index.build(tree)
    assert summary.summarize(built.splits, built.rejected)["identities_in_train_and_test"] == [2]
    with pytest.raises(UserError, match=r"1 identities .* 2"):
        check(built, tree)
    check(built, tree, allow_shared_identities=True)


def test_query_without_a_positive_is_an_error_above_its_limit(tree):
    gallery = tree / "case3_aerial_to_aerial" / "gallery"
    shutil.rmtree(gallery / "0004")
    # Same identity, same camera: junk under the standard rule, so still no positive.
    write_tracklet(gallery / "0004" / "0004_0190", 4, camera=1)
    built = index.build(tree)
    assert [t.identity for t in summary.unmatched_queries(built.splits["A2A"])] == [4]
    assert not summary.unmatched_queries(built.splits["A2G"])
    with pytest.raises(UserError, match=r"A2A: 1 of 2 queries .*query/0004/0004_0100"):
        check(built, tree)
    check(built, tree, max_unmatched_query_share=0.5)


def test_nothing_is_written_into_the_dataset(tree):
    def state():
        return {path: path.stat().st_mtime_ns for path in tree.rglob("*")}

    before = state()
    index.build(tree)
    assert state() == before


def test_the_command_writes_every_part_or_only_what_it_rejects(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(**options):
        dataset = {"name": "tiny", "root": str(tree), **options}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset, **EXPERIMENT}))
        return main(["index", "--config", "config.yaml"])

    (tree / "train/0001/0001_0999").mkdir()
    folder = tmp_path / "results/tiny/index"
    assert run() == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "train/0001/0001_0999: empty tracklet" in error
    assert "0001_0999,empty tracklet" in (folder / "rejected.csv").read_text()
    report = {"rejected.csv", "summary.json"}
    assert {path.name for path in folder.iterdir()} == report
    assert run(max_rejected_share=0.1) == 0
    splits = {"train.parquet", "A2G.parquet", "G2A.parquet", "A2A.parquet", "times.parquet"}
    assert {path.name for path in folder.iterdir()} == report | splits
    assert "unchanged" not in capsys.readouterr().out
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert run(max_rejected_share=0.1) == 0
    assert "train: 6 tracklets, 18 frames: unchanged" in capsys.readouterr().out
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}
    assert run(root=str(tmp_path / "nowhere")) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'} is not a folder")

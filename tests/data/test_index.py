"""`reid index` on a DetReIDX tree: what is indexed, left out, counted and refused."""

import json
import math
import os

import pytest
import yaml

from reid.cli import main
from reid.config import Dataset
from reid.data import index, summary
from reid.data.stored import write_split
from reid.data.tracklet import FrameNames, Tracklet
from reid.errors import UserError
from tests.data.layouts import sh
from tests.trees import EXPERIMENT, frame_name, make_tree, write_frame, write_tracklet

TRACKLET = "train/0001/0001_0100"  # camera 1, capture point 2


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data")


def check(root, built=None, **options):
    """Raises UserError where the index of `root` breaks a limit."""
    built = built or index.build(root)
    options = Dataset(root=root, **options)
    summary.check_limits(built.splits, built.rejected, options, report=root / "rejected.csv")


def test_every_tracklet_with_its_metadata(tree):
    for identity in (10, 9):
        write_tracklet(tree / f"train/{identity}/t", identity, camera=0)
    built = index.build(tree)
    assert not built.rejected
    check(tree)
    sizes = {split: len(tracklets) for split, tracklets in built.splits.items()}
    assert sizes == {"train": 8, "A2G": 6, "G2A": 6, "A2A": 4}
    assert [t.identity for t in built.splits["train"]] == [1, 1, 1, 2, 2, 2, 9, 10]
    tracklet = built.splits["train"][1]
    assert (tracklet.identity, tracklet.name, tracklet.subset) == (1, "0001_0100", "train")
    assert tracklet.path == TRACKLET
    assert (tracklet.view, tracklet.camera, tracklet.session) == ("aerial", 1, 1)
    assert (tracklet.altitude, tracklet.distance, tracklet.angle) == (11.5, 20.0, 30.0)
    assert tuple(tracklet.frames) == tuple(
        frame_name(1, frame, camera=1, point=2, spelling="S") for frame in range(3)
    )


def test_written_index_reads_back(tree, tmp_path):
    (tree / "train/0001/stray, with a comma.txt").write_text("x")
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    one, built = (index.build(tree, workers=workers) for workers in (1, 4))
    assert str(one) == str(built)  # NaN is not equal to itself
    built.write(tmp_path / "index")
    assert str(index.Index.read(tmp_path / "index")) == str(built)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_numbered_frames_take_next_to_no_space(tmp_path):
    names = [frame_name(1, frame, camera=0) for frame in range(20_000)]
    frames = FrameNames.of(names)
    tracklet = Tracklet(1, "t", "train/1/t", "train", "ground", 0, None, *[math.nan] * 3, frames)
    write_split(tmp_path / "train.parquet", [tracklet])
    assert (tmp_path / "train.parquet").stat().st_size < len(names)
    assert list(index.read_split(tmp_path / "train.parquet")[0].frames) == names


def test_summary_counts(tree, tmp_path):
    write_tracklet(tree / "case1_aerial_to_ground/query/0003/0003_0500", 3, camera=0)
    index.build(tree).write(tmp_path)
    counts = json.loads((tmp_path / "summary.json").read_text())
    splits = counts["splits"]
    assert splits["train"] == {
        "train": {
            "identities": 2,
            "tracklets": 6,
            "frames": 18,
            "frames_per_tracklet": {"least": 3, "mean": 3.0, "most": 3},
            "tracklets_by_camera": {"ground": 2, "aerial_session1": 2, "aerial_session2": 2},
            "share_with_metadata": pytest.approx(4 / 6),
            "aerial_outside_capture_points": 0,
        }
    }
    assert splits["A2A"]["query"]["share_with_metadata"] == 1
    assert [splits[p]["of_another_view"] for p in ("A2G", "G2A", "A2A")] == [1, 0, 0]
    assert [splits[p]["unmatched_queries"] for p in ("A2G", "G2A", "A2A")] == [1, 0, 0]
    assert counts["identities_in_train_and_test"] == []
    assert counts["rejected"] == {"files": 0, "share": 0, "reasons": {}}


# -- what is left out ------------------------------------------------------------------------------

UNUSABLE = {
    f"{TRACKLET}/notes.txt": "not a .jpg file",
    f"{TRACKLET}/{frame_name(1, 90, camera=1, point=2)}": "zero bytes",
    f"{TRACKLET}/{frame_name(2, 91, camera=1, point=2)}": "identity 2 of the file is not that",
    f"{TRACKLET}/{frame_name(1, 92, camera=1, point=3)}": "differs from the rest of its tracklet",
    f"{TRACKLET}/{frame_name(1, 93, camera=0)}": "differs from the rest of its tracklet",
    f"{TRACKLET}/{frame_name(1, 94, camera=1, point=2)}": "not a file, or a broken link",
    f"{TRACKLET}/deeper/x.jpg": "folder inside a tracklet folder",
    f"{TRACKLET}/\udcff.jpg": "name is not UTF-8",
    f"train/0001/{frame_name(1, 95, camera=0)}": "file outside a tracklet folder",
    "train/0001/\udcff/a.jpg": "name is not UTF-8",
    "train/unknown/t/x.jpg": "person folder is not an integer",
    "train/0001/0001_0999": "empty tracklet: no .jpg file in it",
    "train/0099": "empty person folder",
}
IGNORED = [
    f"{place}/{name}"
    for place in ("train", "train/0001", TRACKLET)
    for name in (".DS_Store", "Thumbs.db", "._a.jpg", ".cache")
]


def test_unusable_files_have_their_reason_and_those_of_systems_cost_nothing(tree, tmp_path):
    for path, reason in (UNUSABLE | dict.fromkeys(IGNORED, "ignored")).items():
        place = tree / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if reason.startswith("empty"):
            place.mkdir()
        elif place.name == ".cache":
            write_frame(place / "1.jpg", seed=1)
        elif "link" in reason:
            place.symlink_to("nowhere")
        else:
            place.write_bytes(b"" if reason == "zero bytes" else b"x")
    built = index.build(tree)
    written = {path.encode("utf-8", "backslashreplace").decode() for path in UNUSABLE}
    reasons = {row.path: row.reason for row in built.rejected}
    assert {path for path, why in reasons.items() if why == "of the system, ignored"} == {*IGNORED}
    assert set(reasons) - {*IGNORED} == written
    for path, reason in UNUSABLE.items():
        assert reason in reasons[path.encode("utf-8", "backslashreplace").decode()]
    assert sum(len(tracklet.frames) for tracklet in built.splits["train"]) == 18
    assert len(index.build(tree, check_sizes=False).rejected) == len(built.rejected) - 1
    built.write(tmp_path)
    assert index.Index.read(tmp_path).rejected == built.rejected
    frames = sum(len(t.frames) for tracklets in built.splits.values() for t in tracklets)
    share = len(UNUSABLE) / (frames + len(UNUSABLE))
    check(tree, built, max_rejected_share=share)
    with pytest.raises(UserError, match=r"13 files .*rejected\.csv.*max_rejected_share"):
        check(tree, built, max_rejected_share=share - 1e-6)


def test_a_folder_of_system_files_is_empty(tree):
    for path in (tree / TRACKLET).iterdir():
        path.rename(path.with_name(f".{path.name}"))
    empty = [row for row in index.build(tree).rejected if row.reason.startswith("empty tracklet")]
    assert [row.path for row in empty] == [TRACKLET]


def test_the_minority_of_a_tracklet_is_rejected_even_when_it_comes_first(tree):
    (tree / TRACKLET / frame_name(1, 0, camera=1, point=1, spelling="S")).write_bytes(b"x")
    built = index.build(tree)
    tracklet = next(t for t in built.splits["train"] if t.path == TRACKLET)
    assert (len(tracklet.frames), tracklet.altitude, len(built.rejected)) == (3, 11.5, 1)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message", "allowed_by"),
    [
        ("rm -r $PWD", "dataset.root", {}),
        ("rm -r train", "train is not a folder: .*dataset.root", {}),
        ("rm -r case2*", "query is not a folder: .*dataset.protocols", {"protocols": ("A2G",)}),
        ("rm -r case3*/gallery", "gallery is not a folder:", {"protocols": ("A2G", "G2A")}),
        ("rm -r train/*", "holds no tracklet for the train part", {}),
        ("rm -r case1*/query/*", "no tracklet for the query part of A2G", {"protocols": ("A2A",)}),
        ("cp -r train/0001 train/1", "train/1 are both identity 1", {}),
        (
            "cp -r train/0002 case1*/gallery",
            "1 identities are both in training and .* 2:",
            {"allow_shared_identities": True},
        ),
        (  # the same identity and camera in the gallery is junk, no positive
            "rm -r case3*/gallery/0004; cp -r case3*/query/0004 case3*/gallery",
            "A2A: 1 of 2 queries .*query/0004/0004_0100",
            {"max_unmatched_query_share": 0.5},
        ),
    ],
)
def test_a_wrong_tree_is_one_clear_error(tree, command, message, allowed_by):
    sh(tree, command)
    with pytest.raises(UserError, match=message):
        check(tree)
    if allowed_by:
        built = index.build(tree, protocols=allowed_by.get("protocols", ("A2G", "G2A", "A2A")))
        check(tree, built, **allowed_by)


# -- the command -----------------------------------------------------------------------------------


def test_the_command_writes_every_part_or_only_what_it_rejects(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(**options):
        dataset = {"name": "tiny", "root": str(tree), **options}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset, **EXPERIMENT}))
        return main(["index", "--config", "config.yaml"])

    def state():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    (tree / "train/0001/0001_0999").mkdir()
    folder = tmp_path / "results/tiny/index"
    assert run() == 1
    printed = capsys.readouterr()
    (error,) = printed.err.splitlines()
    assert "train/0001/0001_0999: empty tracklet" in error
    assert "index: 23/23 folders" in printed.out
    assert "0001_0999,empty tracklet" in (folder / "rejected.csv").read_text()
    assert {path.name for path in state()} == {"rejected.csv", "summary.json"}
    (tree / "train/\udce9").mkdir()  # a name in Latin-1
    assert run(max_rejected_share=0.1) == 0
    assert r"train/\udce9,name is not UTF-8" in (folder / "rejected.csv").read_text()
    stems = {"train", "A2G", "G2A", "A2A", "times"}
    assert {path.stem for path in state()} == stems | {"rejected", "summary", "train.manifest"}
    before = state()
    assert run(max_rejected_share=0.1) == 0
    assert state() == before
    os.utime(tree / TRACKLET, (1, 1))
    write_frame(tree / "train/0001/0001_0000/0001_0_3_2_1_F_00009.jpg", seed=1)
    assert run(max_rejected_share=0.1) == 0
    changed = {path.stem for path, content in state().items() if content != before[path]}
    assert changed == {"train", "times", "summary", "train.manifest"}
    assert run(root=str(tmp_path / "nowhere")) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'} is not a folder")

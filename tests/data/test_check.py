import csv
import os
import shutil
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from reid.cli import main
from reid.data import check, index
from reid.data.frames import Files
from tests.runs import in_a_fork
from tests.trees import EXPERIMENT, frame_name, make_tree, write_frame


@pytest.fixture
def tree(tmp_path):
    """No two frames of train/ and of one protocol are equal."""
    return make_tree(tmp_path / "data", frames=4, protocols=("A2G",))


@pytest.fixture
def tracklets(tree):
    return index.build(tree, protocols=("A2G",)).splits["train"]


def frame(tree, tracklet, position):
    return tree / tracklet.path / tracklet.frames[position]


@pytest.fixture
def inspect(tree, tmp_path):
    def look(tracklets, **options):
        parts = tmp_path / "parts"
        shutil.rmtree(parts, ignore_errors=True)
        return check.inspect(tracklets, tree, parts, **options)

    return look


def configure(tmp_path, tree, **dataset):
    content = {"dataset": {"name": "tiny", "root": str(tree), "protocols": ["A2G"], **dataset}}
    content |= EXPERIMENT | {"runtime": {"workers": 0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return ["--config", "config.yaml"]


def test_every_frame_is_one_row_as_pillow_reads_it(tree, tracklets, inspect):
    seen = inspect(tracklets)
    assert len(seen) == sum(len(tracklet.frames) for tracklet in tracklets)
    for row in seen.itertuples():
        path = frame(tree, tracklets[row.tracklet], row.position)
        with Image.open(path) as image:
            assert (row.width, row.height) == image.size
        assert row.bytes == path.stat().st_size
    assert check.damages(seen, tracklets) == {}
    assert check.duplicates(seen, tracklets) == []
    assert check.notes(seen, tracklets, least_height=1) == []


def test_histograms_count_frames_and_tracklets_by_capture_point(tree, tracklets, inspect):
    write_frame(frame(tree, tracklets[0], 0), seed=1, height=64)
    write_frame(frame(tree, tracklets[0], 1), seed=1, height=63)
    frame(tree, tracklets[0], 2).unlink()  # no height is known
    counts = check.histograms(inspect(tracklets), tracklets)
    groups = {f"point {t.capture_point:02}" if t.capture_point else "ground" for t in tracklets}
    assert set(counts.group) == groups == {"ground", "point 02", "point 03"}
    for group, part in counts.groupby("group"):
        members = [t for t in tracklets if t.capture_point == (int(group[6:] or 0) or None)]
        paths = [frame(tree, t, i) for t in members for i in range(4)]
        heights = [Image.open(path).height for path in paths if path.exists()]
        edges = [2**power for power in range(12)]
        expected = dict(zip(edges, np.histogram(heights, edges)[0], strict=False))
        sizes, lengths = (part[part.quantity == q] for q in ("crop height", "tracklet length"))
        assert dict(zip(sizes["from"], sizes["count"], strict=True)) == {
            edge: count for edge, count in expected.items() if count
        }
        assert lengths[["from", "count"]].to_numpy().tolist() == [[4, len(members)]]


def test_damaged_and_odd_frames_are_named(tree, tracklets, inspect):
    truncated, missing, wide, gray = (frame(tree, tracklets[1], i) for i in range(4))
    truncated.write_bytes(truncated.read_bytes()[:-30])
    missing.unlink()
    Image.new("RGB", (900, 2100)).save(wide)  # a near person in a 4K picture: usable
    Image.open(gray).convert("L").save(gray)
    thin = frame(tree, tracklets[2], 0)
    Image.new("RGB", (1, 40)).save(thin)
    seen = inspect(tracklets)
    base = tracklets[1].path
    damaged = check.damages(seen, tracklets)
    assert damaged.keys() == {f"{base}/{p.name}" for p in (truncated, missing)}
    assert damaged[f"{base}/{truncated.name}"].startswith("is not a whole JPEG (")
    assert damaged[f"{base}/{missing.name}"] == "is missing"
    notes = dict(check.notes(seen, tracklets, least_height=1))
    assert f"{base}/{wide.name}" not in notes
    assert notes[f"{base}/{gray.name}"].endswith("mode L: used as RGB")
    assert notes[f"{tracklets[2].path}/{thin.name}"].startswith("1 x 40 px")


def test_low_tracklets_and_replaced_frames_get_a_note(tree, tracklets, inspect):
    for position in range(4):
        height = 40 if position == 3 else 10
        write_frame(frame(tree, tracklets[0], position), seed=position, height=height)
        write_frame(frame(tree, tracklets[1], position), seed=position, height=30)
    notes = check.notes(inspect(tracklets[:2]), tracklets[:2], least_height=16)
    replaced = "frames have other sizes than when indexed: index again"
    assert sorted(notes) == [
        (tracklets[0].path, replaced),
        (tracklets[0].path, "median crop height 10 px"),
        (tracklets[1].path, replaced),
    ]


def test_a_sample_looks_at_that_many_frames_of_each_tracklet(tree, tracklets, inspect, tmp_path):
    seen = inspect(tracklets, frames=2)
    whole = check.inspect(tracklets, tree, tmp_path / "parts")  # the sample's parts are still there
    assert len(whole) == 4 * len(tracklets)
    assert seen.groupby("tracklet").position.apply(list).tolist() == [[0, 2]] * len(tracklets)
    assert len(inspect(tracklets, frames=9)) == 4 * len(tracklets)


def test_processes_and_parts_change_nothing(tree, tracklets, inspect, monkeypatch):
    frame(tree, tracklets[2], 1).write_bytes(b"x")
    whole = inspect(tracklets)
    monkeypatch.setattr(check, "TRACKLETS_A_PART", 2)
    for workers in (0, 2):
        parts = inspect(tracklets, workers=workers)
        pd.testing.assert_frame_equal(parts, whole, check_dtype=False, check_categorical=False)


def test_each_kind_of_copy_is_told_apart(tree, inspect):
    train, query = tree / "train/0001/0001_0100", tree / "case1_aerial_to_ground/query"
    source = train / frame_name(1, 0, camera=1, point=2, spelling="S")
    places = {
        "own": train / frame_name(1, 90, camera=1, point=2, spelling="S"),
        "same person": tree / "train/0001/0001_0000" / frame_name(1, 90, camera=0),
        "other": tree / "train/0002/0002_0000" / frame_name(2, 90, camera=0),
        "other again": tree / "train/0002/0002_0000" / frame_name(2, 91, camera=0),
        "test": query / "0003/0003_0200" / frame_name(3, 90, camera=2, point=4),
    }
    for place in places.values():
        shutil.copy(source, place)
    splits = index.build(tree, protocols=("A2G",)).splits
    tracklets = [*splits["train"], *splits["A2G"]]
    first = str(places["same person"].relative_to(tree))
    leak = (str(places["test"].relative_to(tree)), first, "train and test")
    other = (str(places["other"].relative_to(tree)), first, "other identity")
    seen = inspect(tracklets)
    assert sorted(check.duplicates(seen, tracklets)) == [leak, other]
    same_person = [replace(tracklet, identity=1) for tracklet in tracklets]
    assert check.duplicates(seen, same_person) == [leak]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content[: len(content) // 2],
        lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
    ],
)
def test_a_killed_check_continues_with_the_same_report(tree, tmp_path, monkeypatch, damaged):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "TRACKLETS_A_PART", 1)
    configs = configure(tmp_path, tree)
    assert main(["index", *configs]) == main(["check", *configs]) == 0
    folder = tmp_path / "results/tiny/check"
    report = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    assert not list((folder / "parts").iterdir())
    read, reads = Files.read, tmp_path / "reads"

    def counted(self, tracklet, position):
        with reads.open("a") as opened:
            opened.write("x")
        if reads.stat().st_size == 14:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, tracklet, position)

    monkeypatch.setattr(Files, "read", counted)
    assert in_a_fork(lambda: main(["check", *configs])) == -signal.SIGKILL
    (folder / "parts" / "notes.txt").write_text("the user's")
    cut, other, _ = (folder / "parts").glob("*.parquet")
    cut.write_bytes(damaged(cut.read_bytes()))
    pd.DataFrame({"tracklet": [0]}).to_parquet(other)
    assert main(["check", *configs]) == 0
    frames = len(list((tree / "train").rglob("*.jpg"))) * 2  # as many in A2G
    # Again those of the tracklet that the kill cut off, and of two whose parts are damaged.
    assert reads.stat().st_size == frames + 2 + 2 * 4
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == report
    assert [path.name for path in (folder / "parts").iterdir()] == ["notes.txt"]


def test_index_leaves_out_what_check_found_up_to_the_budget(
    tree, tracklets, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    bad = frame(tree, tracklets[3], 0)
    bad.write_bytes(b"not a jpeg")

    config = partial(configure, tmp_path, tree)
    assert main(["index", *config()]) == main(["check", *config()]) == 0
    folder = tmp_path / "results" / "tiny"
    written = {path.name for path in (folder / "check").iterdir() if path.is_file()}
    assert written == {"damaged.csv", "notes.csv", "duplicates.csv", "histograms.csv"}

    verdict = str(folder / "check" / "damaged.csv")
    assert main(["index", *config(damaged=verdict)]) == 1
    with (folder / "index" / "rejected.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    path = f"{tracklets[3].path}/{bad.name}"
    assert rows == [{"path": path, "reason": "damaged: is not a whole JPEG (Not a JPEG file)"}]
    listed = tmp_path / "list.csv"  # as an editor of Windows may leave it
    text = (folder / "check" / "damaged.csv").read_bytes()
    listed.write_bytes(b"\xef\xbb\xbf" + text + b"x,y\r\n\r\n")
    capsys.readouterr()
    assert main(["index", *config(damaged=str(listed), max_rejected_share=0.1)]) == 0
    assert f"1 frames of {listed} are in no tracklet, the first is x" in capsys.readouterr().out
    assert main(["index", *config(damaged=verdict, max_rejected_share=0.1)]) == 0
    assert "in no tracklet" not in capsys.readouterr().out
    left = index.read_split(folder / "index" / "train.parquet")
    assert [len(tracklet.frames) for tracklet in left] == [4, 4, 4, 3, 4, 4]

    # Checked again, the frames that are left out stay left out.
    assert main(["check", *config(damaged=verdict, max_rejected_share=0.1)]) == 0
    assert path in (folder / "check" / "damaged.csv").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "dataset.damaged: bad.csv cannot be read (No such file or directory)"),
        ("something,else\n1,2\n", "bad.csv is not a damaged.csv of `reid check`"),
        ("# Read me\n\nfirst, second, third\n", "bad.csv is not a damaged.csv of `reid check`"),
        ("path,reason\na.jpg,zero bytes\n", "bad.csv is not a damaged.csv of `reid check`"),
    ],
    ids=["missing", "other", "text", "rejected"],
)
def test_a_wrong_verdict_file_is_one_clear_error(
    tree, tmp_path, monkeypatch, capsys, content, words
):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / "bad.csv").write_text(content)
    assert main(["index", *configure(tmp_path, tree, damaged="bad.csv")]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames is 0: expected at least 1"),
        (["--least-height", "-3"], "--least-height is -3: expected at least 1"),
        ([], "run `reid index`"),
    ],
)
def test_a_check_of_nothing_is_refused(tree, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["check", *configure(tmp_path, tree), *arguments]) == 1
    assert message in capsys.readouterr().err

import csv
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from reid.cli import main
from reid.data import index, quality
from tests.trees import make_tree, write_frame


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data", frames=4)


@pytest.fixture
def tracklets(tree):
    return index.build(tree).splits["train"]


def frame(tree, tracklet, position):
    return tree / tracklet.path / tracklet.frames[position]


def test_a_whole_dataset_has_nothing_damaged(tree, tracklets):
    report = quality.check(tracklets, tree)
    assert report.damaged == []
    assert report.frames == sum(len(tracklet.frames) for tracklet in tracklets)


def test_histograms_count_every_frame_and_tracklet_by_capture_point(tree, tracklets):
    report = quality.check(tracklets, tree)
    for group in {"ground", *(f"point {t.capture_point}" for t in tracklets if t.capture_point)}:
        own = [
            t
            for t in tracklets
            if (f"point {t.capture_point}" if t.capture_point else "ground") == group
        ]
        heights = []
        for t in own:
            for position in range(len(t.frames)):
                with Image.open(frame(tree, t, position)) as image:
                    heights.append(image.height)
        assert report.heights[group].tolist() == np.histogram(heights, quality.HEIGHTS)[0].tolist()
        assert report.lengths[group].sum() == len(own)


def test_damaged_and_odd_frames_are_named(tree, tracklets):
    truncated, missing, wide, gray = (frame(tree, tracklets[1], i) for i in range(4))
    truncated.write_bytes(truncated.read_bytes()[:-30])
    missing.unlink()
    Image.new("RGB", (2001, 4)).save(wide)
    Image.open(gray).convert("L").save(gray)
    report = quality.check(tracklets, tree)
    base = tracklets[1].path
    assert dict(report.damaged).keys() == {f"{base}/{p.name}" for p in (truncated, missing, wide)}
    reasons = dict(report.damaged)
    assert reasons[f"{base}/{truncated.name}"].startswith("is not a whole JPEG (")
    assert reasons[f"{base}/{missing.name}"] == "is missing"
    assert reasons[f"{base}/{wide.name}"] == "absurd size 2001 x 4"
    assert (f"{base}/{gray.name}", "stored as Gray, used as RGB") in report.notes


def test_low_tracklets_get_a_note(tree, tracklets):
    for position in range(4):
        write_frame(frame(tree, tracklets[0], position), seed=position, height=10)
        write_frame(frame(tree, tracklets[1], position), seed=position, height=30)
    notes = dict(quality.check(tracklets[:2], tree, least_height=16).notes)
    replaced = "frames have other sizes than when indexed: index again"
    assert notes == {t.path: replaced for t in tracklets[:2]} | {
        tracklets[0].path: "median crop height 10 px"
    }


def test_a_sample_looks_at_that_many_frames_of_each_tracklet(tree, tracklets):
    assert quality.check(tracklets, tree, frames=2).frames == 2 * len(tracklets)
    assert quality.check(tracklets, tree, frames=9).frames == 4 * len(tracklets)


def test_processes_change_nothing(tree, tracklets):
    frame(tree, tracklets[2], 1).write_bytes(b"x")
    one, two = (quality.check(tracklets, tree, workers=workers) for workers in (0, 1))
    assert one.damaged == two.damaged
    assert str(one.heights) == str(two.heights)


def test_index_leaves_out_what_check_found_up_to_the_budget(tree, tracklets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = frame(tree, tracklets[3], 0)
    bad.write_bytes(b"not a jpeg")

    def config(**dataset):
        content = {"dataset": {"name": "tiny", "root": str(tree), **dataset}}
        content |= {"backbones": {}, "trainings": {}, "variants": {}, "runtime": {"workers": 0}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        return ["--config", "config.yaml"]

    assert main(["index", *config()]) == 0
    assert main(["check", *config()]) == 0
    folder = tmp_path / "results" / "tiny"
    written = {path.name for path in (folder / "check").iterdir()}
    assert written == {"damaged.csv", "notes.csv", "histograms.csv", "histograms.png"}
    with Image.open(folder / "check" / "histograms.png") as image:
        image.load()
        assert len(image.getcolors()) > 2

    verdict = str(folder / "check" / "damaged.csv")
    assert main(["index", *config(damaged=verdict)]) == 1
    with (folder / "index" / "rejected.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    path = f"{tracklets[3].path}/{bad.name}"
    assert rows == [{"path": path, "reason": "damaged: is not a whole JPEG (not a JPEG)"}]
    assert main(["index", *config(damaged=verdict, max_rejected_share=0.1)]) == 0
    left = index.read_split(folder / "index" / "train.parquet")
    assert [len(tracklet.frames) for tracklet in left] == [4, 4, 4, 3, 4, 4]
    assert quality.check(left, tree).damaged == []

    # Checked again, the frames that are left out stay left out.
    assert main(["check", *config(damaged=verdict, max_rejected_share=0.1)]) == 0
    assert main(["index", *config(damaged=verdict, max_rejected_share=0.1)]) == 0
    again = index.read_split(folder / "index" / "train.parquet")
    assert [len(tracklet.frames) for tracklet in again] == [4, 4, 4, 3, 4, 4]
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
    raw = {"dataset": {"name": "tiny", "root": str(tree), "damaged": "bad.csv"}}
    raw |= {"backbones": {}, "trainings": {}, "variants": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    assert main(["index", "--config", "config.yaml"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--frames", "--least-height"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_check_of_nothing_is_refused(tree, tmp_path, monkeypatch, capsys, flag, value):
    monkeypatch.chdir(tmp_path)
    raw = {"dataset": {"name": "tiny", "root": str(tree)}}
    raw |= {"backbones": {}, "trainings": {}, "variants": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    assert main(["check", "--config", "config.yaml", flag, value]) == 1
    assert f"{flag} is {value}: expected at least 1" in capsys.readouterr().err


def test_check_without_an_index_says_so(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raw = {"dataset": {"name": "tiny", "root": str(tree)}}
    raw |= {"backbones": {}, "trainings": {}, "variants": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    assert main(["check", "--config", "config.yaml"]) == 1
    assert "run `reid index`" in capsys.readouterr().err
    shutil.rmtree(tree)
    assert main(["check", "--config", "config.yaml"]) == 1

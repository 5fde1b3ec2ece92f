import csv
import json
import shutil

import pandas as pd
import pytest
import yaml

from reid.cli import main
from reid.data import duplicates, index
from tests.trees import frame_name, make_tree


@pytest.fixture
def tree(tmp_path):
    """No two frames of train/ and of one protocol are equal."""
    return make_tree(tmp_path / "data", frames=3, protocols=("A2G",))


def find(tree):
    return duplicates.find(index.build(tree, protocols=("A2G",)).splits, tree)


def test_there_are_none(tree):
    found = find(tree)
    assert set(found.summary().values()) == {0, found.frames}
    assert found.frames == len(list(tree.rglob("*.jpg")))


def test_each_kind_is_told_apart(tree):
    train, query = tree / "train/0001/0001_0100", tree / "case1_aerial_to_ground/query"
    source = train / frame_name(1, 0, camera=1, point=2, spelling="S")
    places = {
        "own": train / frame_name(1, 90, camera=1, point=2, spelling="S"),
        "same person": tree / "train/0001/0001_0000" / frame_name(1, 90, camera=0),
        "other": tree / "train/0002/0002_0000" / frame_name(2, 90, camera=0),
        "test": query / "0003/0003_0200" / frame_name(3, 90, camera=2, point=4),
    }
    for place in places.values():
        shutil.copy(source, place)
    found = find(tree)
    assert (found.in_tracklet, found.in_identity) == (1, 1)
    paths = {name: str(place.relative_to(tree)) for name, place in places.items()}
    assert {(path, why) for path, _, why in found.bad} == {
        (paths["other"], "other identity"),
        (paths["test"], "train and test"),
    }
    assert {first for _, first, _ in found.bad} == {paths["same person"]}


def test_through_the_command_line(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = tree / "train/0002/0002_0000"
    shutil.copy(next((tree / "train/0001/0001_0000").iterdir()), other / frame_name(2, 9, camera=0))
    base = {"dataset": {"name": "tiny", "root": str(tree), "protocols": ["A2G"]}}
    base |= {"backbones": {}, "trainings": {}, "variants": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base))
    folder = tmp_path / "results/tiny/index"
    assert main(["index", "--config", "config.yaml"]) == 0
    assert "duplicates" not in json.loads((folder / "summary.json").read_text())
    assert main(["index", "--duplicates", "--config", "config.yaml"]) == 0
    counts = json.loads((folder / "summary.json").read_text())["duplicates"]
    assert counts["copies_between_identities"] == 1
    with (folder / "duplicates.csv").open() as opened:
        (row,) = csv.DictReader(opened)
    assert row["path"] == f"train/0002/0002_0000/{frame_name(2, 9, camera=0)}"
    assert not (folder / "scan.journal").exists()
    assert main(["index", "--config", "config.yaml"]) == 0
    assert not (folder / "duplicates.csv").exists()


def test_the_capture_point_is_a_column(tree, tmp_path):
    built = index.build(tree, protocols=("A2G",))
    built.write(tmp_path / "index")
    table = pd.read_parquet(tmp_path / "index" / "train.parquet")
    expected = [tracklet.capture_point for tracklet in built.splits["train"]]
    assert [None if pd.isna(point) else int(point) for point in table["capture_point"]] == expected
    assert {None, 2, 3} == set(expected)
    assert table["frame_count"].tolist() == [3] * len(expected)

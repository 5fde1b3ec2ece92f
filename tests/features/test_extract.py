"""Extraction: of the right tracklets, mirrored left to right, in the precision asked for."""

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.numpy import load_file

from reid import config
from reid.cli import main
from reid.data.index import read_split
from reid.features.extract import warn_about_metadata
from tests.golden import experiment
from tests.manifests import describe
from tests.retrieval import worlds

FEATURES = Path("results/golden/features/all/seed1")
RUN = Path("results/golden/train/all/seed1")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden experiment after no epoch of training."""
    home = tmp_path_factory.mktemp("untrained")
    settings = copy.deepcopy(experiment.SETTINGS)
    for stage in ("stage1", "stage2"):
        settings["trainings"]["all"][stage]["epochs"] = 0
    experiment.write_inputs(home, settings)
    with experiment.working_in(home):
        experiment.run("index")
        for stage in ("stage1", "stage2"):
            experiment.run("train", stage, "--training", "all", "--seed", "1")
    return home


@pytest.fixture
def home(untrained: Path, tmp_path: Path) -> Path:
    """A copy of `untrained` that a test may change."""
    return shutil.copytree(untrained, tmp_path / "home")


def extract(
    home: Path, protocol: str, *, flip_tta: bool = True, **runtime: str
) -> dict[str, np.ndarray]:
    """The tensors of a protocol's features, newly extracted."""
    with experiment.working_in(home):
        settings = yaml.safe_load(Path("config.yaml").read_text())
        settings["runtime"] |= runtime
        for variant in settings["variants"].values():
            variant |= {} if flip_tta else {"flip_tta": False}
        Path("changed.yaml").write_text(yaml.safe_dump(settings))
        describe(config.load([Path("changed.yaml")]))
        options = ("--training", "all", "--seed", "1", "--protocol", protocol)
        assert main(["extract", "--config", "changed.yaml", *options]) == 0
        return load_file(FEATURES / f"{protocol}.safetensors")


def write(path: Path, image: Image.Image) -> None:
    """Replace a file, without a new modification time of its folder."""
    with path.open("wb") as opened:
        image.save(opened, "JPEG", quality=100, subsampling=0)


def test_flipped_features_are_those_of_frames_mirrored_left_to_right(home: Path) -> None:
    before = extract(home, "A2G")
    plain = extract(home, "A2G", flip_tta=False)
    assert plain.keys() == before.keys() - {"flipped"}
    for name, tensor in plain.items():
        np.testing.assert_array_equal(tensor, before[name])
    for path in (home / "data").rglob("*.jpg"):
        if "train" not in path.parts:
            write(path, ImageOps.mirror(Image.open(path)))
    after = extract(home, "A2G")
    for view, other in (("features", "flipped"), ("flipped", "features")):
        np.testing.assert_allclose(after[view], before[other], atol=1e-5)
        assert np.abs(after[view] - before[view]).max() > 0.1


def test_the_first_frame_of_each_chunk_is_seen_and_its_height_recorded(home: Path) -> None:
    before = extract(home, "A2A")
    tracklets = read_split(home / "results/golden/index/A2A.parquet")
    chosen = (0, 2, 4)  # 3 of 7 frames: chunks of 2
    heights = []
    for tracklet in tracklets:
        folder = home / "data" / tracklet.path
        sizes = [Image.open(folder / name).height for name in tracklet.frames]
        heights.append(float(np.median([sizes[position] for position in chosen])))
        for position, name in enumerate(tracklet.frames):
            if position not in chosen:
                write(folder / name, Image.new("RGB", (16, 32), "white"))
    after = extract(home, "A2A")
    np.testing.assert_array_equal(after["features"], before["features"])
    np.testing.assert_array_equal(before["heights"], heights)


def test_aerial_tracklets_without_metadata_are_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known, ground = (worlds.tracklet(1, camera, 0, "query") for camera in (1, 0))
    bare = dataclasses.replace(known, altitude=math.nan, distance=math.nan, angle=math.nan)
    warn_about_metadata((known, ground), "A2G")
    assert not capsys.readouterr().out
    warn_about_metadata((known, bare, ground, ground), "A2G")
    assert "warning: 1 of 2 aerial tracklets of A2G have no altitude" in capsys.readouterr().out


def test_validation_features_are_of_people_who_were_not_trained_on(home: Path) -> None:
    before = extract(home, "validation")["features"]
    with safe_open(home / RUN / "stage2.safetensors", framework="np") as opened:
        trained = set(json.loads(opened.metadata()["facts"])["identities"])
    train = read_split(home / "results/golden/index/train.parquet")
    held_out = [tracklet for tracklet in train if tracklet.identity not in trained]
    assert 0 < len(held_out) == len(before) < len(train) / 2
    for number in (0, len(held_out) - 1):
        for path in (home / "data" / held_out[number].path).iterdir():
            write(path, Image.new("RGB", (16, 32), "white"))
        after = extract(home, "validation")["features"]
        assert np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-3).tolist() == [number]
        before = after


def test_mixed_precision_is_used_and_recorded(home: Path) -> None:
    full = extract(home, "A2A")["features"]
    half = extract(home, "A2A", precision="bf16")["features"]
    assert half.dtype == np.float32
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-4 < error < 0.1
    with safe_open(home / FEATURES / "A2A.safetensors", framework="np") as opened:
        assert json.loads(opened.metadata()["facts"])["precision"] == "bf16"

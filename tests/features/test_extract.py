"""Extraction: of the right tracklets, mirrored left to right, in the precision asked for."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from reid.data.index import read_split
from reid.features.features import read_features
from tests.golden import experiment

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


def extract(home: Path, protocol: str, **runtime: str) -> dict[str, np.ndarray]:
    """The tensors of a protocol's features, newly extracted."""
    with experiment.working_in(home):
        options = ("--training", "all", "--seed", "1", "--protocol", protocol)
        settings = yaml.safe_load(Path("config.yaml").read_text())
        settings["runtime"] |= runtime
        Path("config.yaml").write_text(yaml.safe_dump(settings))
        experiment.run("extract", *options)
        return load_file(FEATURES / f"{protocol}.safetensors")


def redraw(home: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the pixels of every test frame, in place and without loss."""
    for path in (home / "data").rglob("*.jpg"):
        if "train" not in path.parts:
            pixels = change(np.asarray(Image.open(path)))
            with path.open("wb") as opened:
                Image.fromarray(pixels).save(opened, "JPEG", quality=100, subsampling=0)


def test_flipped_features_are_those_of_frames_mirrored_left_to_right(
    untrained: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(untrained, tmp_path / "home")
    before = extract(home, "A2G")
    redraw(home, lambda pixels: pixels[:, ::-1])
    after = extract(home, "A2G")
    for view, other in (("features", "flipped"), ("flipped", "features")):
        np.testing.assert_allclose(after[view], before[other], atol=1e-5)
        assert np.abs(after[view] - before[view]).max() > 0.1


def test_flip_augmentation_at_test_time_is_the_mean_of_both_views(
    untrained: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(untrained, tmp_path / "home")
    tensors = extract(home, "A2G")
    path = home / FEATURES / "A2G.safetensors"
    rows = len(tensors["features"])
    mean = (tensors["features"] + tensors["flipped"]) / 2
    read = read_features(path, rows=rows, flip_tta=True)
    np.testing.assert_allclose(read, mean, rtol=1e-6, atol=1e-7)
    plain = read_features(path, rows=rows, flip_tta=False)
    np.testing.assert_array_equal(plain, tensors["features"])


def test_validation_features_are_of_people_who_were_not_trained_on(
    untrained: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(untrained, tmp_path / "home")
    before = extract(home, "validation")["features"]
    with safe_open(home / RUN / "stage2.safetensors", framework="np") as opened:
        trained = set(json.loads(opened.metadata()["facts"])["identities"])
    train = read_split(home / "results/golden/index/train.parquet")
    held_out = [tracklet for tracklet in train if tracklet.identity not in trained]
    assert 0 < len(held_out) == len(before) < len(train) / 2
    for number in (0, len(held_out) - 1):
        for path in (home / "data" / held_out[number].path).iterdir():
            with path.open("wb") as opened:
                Image.new("RGB", (16, 32), "white").save(opened, "JPEG")
        after = extract(home, "validation")["features"]
        assert np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-3).tolist() == [number]
        before = after


def test_mixed_precision_is_used_and_recorded(untrained: Path, tmp_path: Path) -> None:
    home = shutil.copytree(untrained, tmp_path / "home")
    full = extract(home, "A2A")["features"]
    half = extract(home, "A2A", precision="bf16")["features"]
    assert half.dtype == np.float32
    error = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-4 < error < 0.1
    with safe_open(home / FEATURES / "A2A.safetensors", framework="np") as opened:
        assert json.loads(opened.metadata()["facts"])["precision"] == "bf16"

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from reid.errors import UserError
from reid.retrieval import retrieve
from reid.retrieval.metrics import evaluate
from reid.retrieval.rerank import k_reciprocal
from tests.retrieval import oracle, worlds


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings()
    return options, worlds.make(options)


def read(results, variant, protocol):
    return json.loads(results.retrieval(variant, 1, protocol).read_text())


def ids(tracklets, subset):
    return [t.identity for t in tracklets if t.subset == subset]


def cams(tracklets, subset):
    return [t.camera for t in tracklets if t.subset == subset]


def sides_of(protocol):
    tracklets = worlds.protocol_tracklets(protocol)
    return (*(ids(tracklets, s) for s in ("query", "gallery")),
            *(cams(tracklets, s) for s in ("query", "gallery")))  # fmt: skip


@pytest.mark.parametrize("protocol", ["A2G", "G2A", "A2A"])
def test_plain_variant_is_cosine_measured_by_the_oracle(world, protocol):
    options, results = world
    retrieve.run(options, "good", 1, protocol)
    report = read(results, "good", protocol)
    tracklets = worlds.protocol_tracklets(protocol)
    rows = worlds.features_of(tracklets, seed=1, noise=1.0).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = sides_of(protocol)
    split = len(labels[0])
    distances = 1 - rows[:split] @ rows[split:].T
    for key, trapezoid in (("mAP", False), ("mAP_trapezoid", True)):
        ap, first = oracle.evaluate(distances, *labels, trapezoid=trapezoid)
        assert report[key] == pytest.approx(ap.mean(), abs=1e-9)
    assert report["cmc"]["1"] == pytest.approx((first == 1).mean())
    assert report["per_query"]["first_rank"] == first.tolist()
    assert report["mAP_without_rerank"] == report["mAP"]
    assert 0 < report["chance_mAP"] < report["mAP"]


def test_flip_averages_raw_features_then_reranks(world):
    options, results = world
    retrieve.run(options, "rerank", 1, "A2G")
    tracklets = worlds.protocol_tracklets("A2G")
    both = [worlds.features_of(tracklets, seed=seed, noise=1.0) for seed in (1, 1001)]
    rows = (both[0] + both[1]) / np.float32(2)
    labels = sides_of("A2G")
    split = len(labels[0])
    distances = k_reciprocal(rows[:split], rows[split:], k1=5, k2=2, lambda_value=0.3)
    report = read(results, "rerank", "A2G")
    assert report["mAP"] == evaluate(distances, *labels).mAP
    assert report["mAP_without_rerank"] != report["mAP"]
    assert report["rerank"]["k1"] == 5


def test_features_of_another_index_are_refused(world):
    options, results = world
    path = results.features("good", 1, "A2G")
    worlds.write_features(path, np.zeros((3, 16), np.float32))
    with pytest.raises(UserError, match=r"A2G.safetensors has 3 rows, the index 54"):
        retrieve.run(options, "good", 1, "A2G")


@pytest.mark.parametrize("damage", ["nan", "no_flip", "truncated", "missing"])
def test_bad_features_are_one_clear_error(world, damage):
    options, results = world
    path = results.features("good", 1, "A2G")
    rows = worlds.features_of(worlds.protocol_tracklets("A2G"), seed=1, noise=1.0)
    if damage == "nan":
        rows[4, 2] = np.nan
    worlds.write_features(path, rows, rows if damage == "nan" else None)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    if damage == "missing":
        path.unlink()
    expected = {
        "nan": "row 4 are not finite",
        "no_flip": "lacks the features of mirrored clips",
        "truncated": "damaged",
        "missing": "does not exist",
    }[damage]
    with pytest.raises(UserError, match=expected):
        retrieve.run(options, "rerank", 1, "A2G")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("features", np.ones(54, np.float32), r"features have shape \(54,\)"),
        ("flipped", np.ones((54, 9), np.float32), r"flipped have shape \(54, 9\)"),
        ("flipped", np.full((54, 16), np.nan, np.float32), "flipped of row 0 are not finite"),
        ("heights", np.full(54, np.nan, np.float32), "not 54 positive heights"),
        ("heights", np.ones(3, np.float32), "not 54 positive heights"),
        ("features", None, "holds no features"),
    ],
)
def test_odd_tensors_are_one_clear_error(world, name, tensor, message):
    options, results = world
    path = results.features("good", 1, "A2G")
    rows = np.ones((54, 16), np.float32)
    tensors = {"features": rows, "flipped": rows, "heights": rows[:, 0], name: tensor}
    save_file({key: value for key, value in tensors.items() if value is not None}, path)
    with pytest.raises(UserError, match=message):
        retrieve.run(options, "rerank", 1, "A2G")

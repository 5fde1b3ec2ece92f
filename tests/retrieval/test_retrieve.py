"""`reid retrieve`: metrics of real features files against the oracle, and damaged files."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from reid.errors import UserError
from reid.features.features import read_features
from reid.retrieval import retrieve
from reid.retrieval.metrics import evaluate
from reid.retrieval.rerank import k_reciprocal
from tests.manifests import describe
from tests.retrieval import oracle, worlds


def run(world, variant, protocol):
    options, results = world
    retrieve.run(options, variant, 1, protocol)
    return json.loads(results.retrieval(variant, 1, protocol).read_text())


def labels_of(protocol):
    tracklets = worlds.protocol_tracklets(protocol)
    sides = [[t for t in tracklets if t.subset == subset] for subset in ("query", "gallery")]
    people = [[t.identity for t in side] for side in sides]
    return (*people, *([t.camera for t in side] for side in sides))


@pytest.mark.parametrize("protocol", ["A2G", "G2A", "A2A"])
def test_plain_variant_is_cosine_measured_by_the_oracle(world, protocol):
    report = run(world, "good", protocol)
    tracklets = worlds.protocol_tracklets(protocol)
    rows = worlds.features_of(tracklets, seed=1, noise=1.0).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = labels_of(protocol)
    split = len(labels[0])
    distances = 1 - rows[:split] @ rows[split:].T
    for key, trapezoid in (("mAP", False), ("mAP_trapezoid", True)):
        ap, first = oracle.evaluate(distances, *labels, trapezoid=trapezoid)
        assert report[key] == pytest.approx(ap.mean(), abs=1e-9)
        ap, _ = oracle.evaluate(distances, *labels[:2], trapezoid=trapezoid)
        assert report["without_junk_rule"][key] == pytest.approx(ap.mean(), abs=1e-9)
    assert report["cmc"]["1"] == pytest.approx((first == 1).mean())
    assert report["per_query"]["first_rank"] == first.tolist()
    assert report["mAP_without_rerank"] == report["mAP"]
    assert 0 < report["chance_mAP"] < report["mAP"]
    tallest = max(e["group"] for e in report["breakdown"] if e["attribute"] == "pixel height")
    (side,) = {e["side"] for e in report["breakdown"] if e["group"] == tallest}
    assert side == "gallery"  # whose rows, and heights in `worlds`, come last


def test_flip_averages_raw_features_then_reranks(world):
    tracklets = worlds.protocol_tracklets("A2G")
    both = [worlds.features_of(tracklets, seed=seed, noise=1.0) for seed in (1, 1001)]
    rows = (both[0] + both[1]) / np.float32(2)
    labels = labels_of("A2G")
    split = len(labels[0])
    distances = k_reciprocal(rows[:split], rows[split:], k1=5, k2=2, lambda_value=0.3)
    path = world[1].features("good", 1, "A2G")
    for flip_tta, expected in ((True, rows), (False, both[0])):
        read = read_features(path, rows=len(rows), flip_tta=flip_tta)
        np.testing.assert_array_equal(read, expected)  # the mean: a sum would rank alike
    report = run(world, "rerank", "A2G")
    assert report["mAP"] == evaluate(distances, *labels).mAP
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = evaluate(1 - rows[:split] @ rows[split:].T, *labels).mAP
    assert report["mAP_without_rerank"] == pytest.approx(plain, abs=1e-6)
    assert report["rerank"]["k1"] == 5


ROWS = np.ones((54, 16), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ROWS[:3], "flipped": ROWS[:3]}, "safetensors has 3 rows, the index 54"),
        ({"features": ROWS[:, 0]}, r"features have shape \(54,\)"),
        ({"features": np.where(ROWS.cumsum(axis=0) == 5, np.nan, ROWS)}, "row 4 are not finite"),
        ({"flipped": ROWS[:, :9]}, r"flipped have shape \(54, 9\)"),
        ({"flipped": ROWS * np.nan}, "flipped of row 0 are not finite"),
        ({"flipped": None}, "lacks the features of mirrored clips"),
        ({"heights": ROWS[:, 0] * np.nan}, "not 54 positive heights"),
        ({"heights": ROWS[:3, 0]}, "not 54 positive heights"),
        ({"features": None}, "holds no features"),
        ("truncated", "is damaged"),
        ("missing", "A2G.safetensors does not exist: run `reid extract --training good --seed 1"),
    ],
)
def test_bad_features_are_one_clear_error(world, change, message):
    path = world[1].features("good", 1, "A2G")
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif change == "missing":
        path.unlink()
    else:
        tensors = {"features": ROWS, "flipped": ROWS, "heights": ROWS[:, 0], **change}
        save_file({key: value for key, value in tensors.items() if value is not None}, path)
    describe(world[0])
    with pytest.raises(UserError, match=message):
        run(world, "rerank", "A2G")

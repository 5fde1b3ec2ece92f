"""What the report says of temporal attention."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reid.errors import UserError
from reid.report.attention import (
    WeightedTracklet,
    attention,
    choose,
    correlation,
    frame_weights,
    spearman,
    weight_by_rank,
)
from reid.report.collect import ablation_rows
from reid.report.figures import Look
from tests.report.home import csv_rows, parsed, replaced
from tests.retrieval.worlds import tracklet


def sample(identity, weights, heights, number=0, camera=1):
    both = np.array([weights, weights], np.float32)
    qualities = {"height": np.array(heights, np.float64)}
    return WeightedTracklet(tracklet(identity, camera, number, "query"), both, qualities)


def test_spearman_within_a_tracklet():
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert spearman(weights, np.array([1.0, 2, 3, 40])) == pytest.approx(1)
    assert spearman(weights, np.array([9.0, 8, 2, 1])) == pytest.approx(-1)
    assert math.isnan(spearman(weights, np.full(4, 7.0)))
    assert math.isnan(spearman(np.full(4, 0.25, np.float32), np.arange(4.0)))


def test_weights_by_rank_of_the_frame():
    samples = [
        sample(101, [0.1, 0.2, 0.3, 0.4], [10, 20, 30, 40]),
        sample(102, [0.4, 0.3, 0.2, 0.1], [90, 80, 70, 60]),
        sample(103, [0.7, 0.1, 0.1, 0.1], [50, 50, 50, 50]),  # nothing to tell apart
    ]
    parts = weight_by_rank(samples, "height", 4)
    assert parts["part"].tolist() == [1, 2, 3, 4]
    assert parts["weight_times_T"].tolist() == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert parts["frames"].tolist() == [2, 2, 2, 2]
    assert (parts["low"] <= parts["weight_times_T"]).all()
    assert (parts["weight_times_T"] <= parts["high"]).all()
    halves = weight_by_rank(samples, "height", 2)
    assert halves["weight_times_T"].tolist() == pytest.approx([0.6, 1.4])
    assert correlation(samples, 0, "height") == "height 1.00 (1.00 to 1.00), 2 tracklets"
    assert correlation(samples[2:], 0, "height") == "height: the same in all frames"
    assert weight_by_rank(samples[2:], "height", 4).empty


def test_the_most_uneven_tracklet_and_one_of_each_angle():
    samples = [sample(101, [0.25] * 4, [1] * 4, number=number) for number in range(18)]
    samples[6] = sample(101, [0.7, 0.1, 0.1, 0.1], [1] * 4)
    chosen = choose(samples, 0)
    assert chosen[0] == ("Most uneven", samples[6])
    assert [reason for reason, _ in chosen[1:]] == [f"Random, {a} degrees" for a in (30, 60, 90)]
    assert [shown.tracklet.angle for _, shown in chosen[1:]] == [30, 60, 90]
    ground = [sample(101, [0.25] * 4, [1] * 4, number, camera=0) for number in range(9)]
    assert [reason for reason, _ in choose(ground, 0)] == ["Most uneven", *["Random"] * 3]


def test_what_the_page_shows_is_what_was_extracted(results, tmp_path):
    row = next(row for row in ablation_rows(parsed()) if row.name == "pooled")
    plot, sheets = attention(parsed(), row.first()["A2G"], Look(tmp_path, ["pooled"]))
    stored = frame_weights(results.features("pooled", 1, "A2G"))
    assert stored.shape[1:] == (2, 3)
    np.testing.assert_allclose(stored.sum(axis=2), 1, rtol=1e-5)
    for sheet in sheets:
        weights = [weight for weight, *_ in sheet.frames]
        assert weights == sorted(weights, reverse=True)
        assert any(np.allclose(sorted(row[0]), sorted(weights)) for row in stored)
    assert plot.caption.count("tracklets") >= 4
    assert {line["quality"] for line in csv_rows(tmp_path / "attention_pooled.csv")} == {
        *("height", "sharpness")
    }


def test_features_without_weights_say_what_to_do(results):
    path = results.features("pooled", 1, "A2G")
    tensors = load_file(path)
    del tensors["frame_weights"]
    with replaced(path, path.read_bytes()):
        save_file(tensors, path)
        with pytest.raises(UserError, match="no frame weights: run `reid extract` again"):
            frame_weights(path)

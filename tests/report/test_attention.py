"""What the report says of temporal attention."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reid.config import Report
from reid.errors import UserError
from reid.report.attention import Sample, attention, choose, frame_weights, spearman, weight_by_rank
from reid.report.cells import collect
from reid.report.measured import measurements
from tests.report.home import csv_rows, parsed, replaced
from tests.retrieval.worlds import tracklet


def sample(identity, weights, heights):
    both = np.array([weights, weights], np.float32)
    return Sample(
        tracklet(identity, 1, 0, "query"), both, {"height": np.array(heights, np.float64)}
    )


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
    assert [part.place for part in parts] == [0, 1, 2, 3]
    assert [part.mean for part in parts] == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert [part.frames for part in parts] == [2, 2, 2, 2]
    assert all(part.interval[0] <= part.mean <= part.interval[1] for part in parts)
    halves = weight_by_rank(samples, "height", 2)
    assert [part.mean for part in halves] == pytest.approx([0.6, 1.4])


def test_the_most_uneven_tracklet_comes_first():
    weights = np.full((9, 4), 0.25, np.float32)
    weights[6] = [0.7, 0.1, 0.1, 0.1]
    chosen = choose(weights, Report())
    assert chosen[0] == ("Most uneven", 6)
    assert len({place for _, place in chosen}) == 4


def test_what_the_page_shows_is_what_was_extracted(results, tmp_path):
    row = next(row for row in collect(parsed()) if row.name == "pooled")
    found = measurements(results, row)["A2G"]
    shown = attention(parsed(), found, tmp_path)
    stored = frame_weights(results.features("pooled", 1, "A2G"))
    assert stored.shape[1:] == (2, 3)
    np.testing.assert_allclose(stored.sum(axis=2), 1, rtol=1e-5)
    for sheet in shown.sheets:
        weights = [frame.weight for frame in sheet.frames]
        assert weights == sorted(weights, reverse=True)
        assert any(np.allclose(sorted(row[0]), sorted(weights)) for row in stored)
        assert sheet.mean == pytest.approx(1 / 3)
    assert [each.quality for each in shown.correlations] == ["height", "sharpness"] * 2
    for each in shown.correlations:
        assert each.rho is None or -1 <= each.rho <= 1
        assert each.tracklets <= 12
    assert csv_rows(tmp_path / "attention_pooled.csv")


def test_features_without_weights_say_what_to_do(results):
    path = results.features("pooled", 1, "A2G")
    tensors = load_file(path)
    del tensors["frame_weights"]
    with replaced(path, path.read_bytes()):
        save_file(tensors, path)
        with pytest.raises(UserError, match="no frame weights: run `reid extract` again"):
            frame_weights(path)

"""Ranked lists: the queries that are chosen, and that their rankings are those measured."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from reid.config import Report
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features.features import read_features
from reid.report.cells import collect
from reid.report.measured import Measurement, detailed, measurements, one_a_training
from reid.report.ranked import by_capture_point, choose, draw_others, ranked_lists
from reid.retrieval.retrieve import distances_of, split_protocol
from tests.report.home import parsed
from tests.retrieval.worlds import tracklet


def measurement(results, name, protocol):
    row = next(row for row in collect(parsed()) if row.name == name)
    return measurements(results, row)[protocol]


def asked(precision):
    content = {"per_query": {"ap": precision}}
    return Measurement(SimpleNamespace(), 1, "A2G", content)


def test_the_best_with_fewest_pixels_and_the_worst_with_most():
    found = asked([0.5, 1.0, 1.0, None, 0.1, 0.1])
    queries = [tracklet(101, 1, number, "query") for number in range(6)]
    heights = np.array([30, 80, 20, 5, 40, 90], np.float32)
    assert choose(found, queries, heights) == [("Best", 2), ("Worst", 5)]
    assert choose(found, queries, None) == [("Best", 1), ("Worst", 4)]


def test_random_queries_hang_on_the_seed_and_are_others():
    found = asked([0.5] * 40 + [None] * 40)
    drawn = [draw_others(found, {0, 1}, Report(queries=4, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    for each in drawn:
        places = [q for _, q in each]
        assert len(set(places)) == 4
        assert set(places) <= set(range(2, 40))
    assert draw_others(asked([0.5, None]), {0}, Report()) == []


def test_one_query_of_each_capture_point():
    queries = [tracklet(101, 1, number % 3, "query") for number in range(9)]
    queries += [tracklet(101, 0, 0, "query")]
    found = by_capture_point(asked([0.5] * 10), queries, Report())
    assert [reason for reason, _ in found] == [f"Capture point {point}" for point in (1, 2, 3)]
    assert [queries[q].capture_point for _, q in found] == [1, 2, 3]


@pytest.mark.parametrize("protocol", ["A2G", "A2A"])
def test_the_lists_are_the_rankings_that_were_measured(results, protocol):
    found = measurement(results, "pooled", protocol)
    lists = ranked_lists(parsed(top=4), found)
    tracklets = read_split(results.index(protocol))
    queries, gallery = split_protocol(tracklets)
    features = read_features(
        results.features("pooled", 1, protocol), rows=len(tracklets), flip_tta=False
    )
    split = len(queries)
    place = {query.name: q for q, query in enumerate(queries)}
    precision = found.content["per_query"]["ap"]
    assert len(lists.chosen) == 2
    assert len(lists.random) == 1
    for shown in (*lists.chosen, *lists.random, *lists.by_capture_point):
        q = place[shown.query.name]
        for ranking, rerank in zip(shown.lists, (None, found.rerank), strict=True):
            distances = distances_of(features[:split], features[split:], rerank)[q]
            order = np.argsort(distances, kind="stable")[:4]
            names = [entry.tracklet.name for entry in ranking.entries]
            assert names == [gallery[g].name for g in order]
            shown_distances = [entry.distance for entry in ranking.entries]
            # Products of other sizes are rounded otherwise.
            assert shown_distances == pytest.approx(distances[order].tolist(), abs=1e-5)
            hits = [entry.hit for entry in ranking.entries]
            assert hits == [gallery[g].identity == shown.query.identity for g in order]
            first = ranking.first_hit
            assert hits.index(True) + 1 == first if any(hits) else first > 4
        assert shown.lists[1].ap == pytest.approx(precision[q])
    best, worst = (place[shown.query.name] for shown in lists.chosen)
    assert precision[best] == max(precision)
    assert precision[worst] == min(precision)


def test_junk_is_left_out(results, monkeypatch):
    found = measurement(results, "mean", "A2A")
    _, gallery = split_protocol(read_split(results.index("A2A")))

    def same_camera(tracklets):
        queries, (first, *rest) = split_protocol(tracklets)
        return queries, [replace(first, camera=queries[0].camera), *rest]

    monkeypatch.setattr("reid.report.ranked.split_protocol", same_camera)
    lists = ranked_lists(parsed(top=50, queries=50), found)
    for shown in (*lists.chosen, *lists.random):
        (ranking,) = shown.lists
        left_out = len(gallery) - len(ranking.entries)
        assert left_out == (shown.query.identity == gallery[0].identity)


def test_the_row_in_detail_and_one_row_a_training(results):
    rows = collect(parsed())
    assert detailed(rows, None).name == "tuned"
    assert detailed(rows, "mean").name == "mean"
    assert detailed(rows, "later") is None
    assert [row.name for row in one_a_training(rows, most=4)] == ["mean", "tuned"]
    assert [row.name for row in one_a_training(rows * 1, most=1)] == ["mean"]


def test_an_index_that_changed_afterwards_is_refused(results):
    found = measurement(results, "mean", "A2G")
    names = found.content["per_query"]["tracklet"]
    content = {**found.content, "per_query": {"tracklet": names[::-1]}}
    with pytest.raises(UserError, match=r"A2G.parquet changed: run `reid retrieve` again"):
        ranked_lists(parsed(), replace(found, content=content))

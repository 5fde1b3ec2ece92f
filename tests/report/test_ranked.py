"""Ranked lists: the queries that are chosen, and that their rankings are those measured."""

from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

from reid.config import Report, ReRanking
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features.features import read_features
from reid.report.collect import ablation_rows
from reid.report.ranked import EXTREMES, POINTS, RANDOM, choose, ranked_lists
from reid.retrieval.retrieve import distances_of, split_protocol
from tests.report.home import parsed
from tests.retrieval.worlds import tracklet


def measurement(name, protocol):
    row = next(row for row in ablation_rows(parsed()) if row.name == name)
    return row.first()[protocol]


def chosen(precision, camera=1, heights=None, **options):
    queries = [tracklet(101, camera, number, "query") for number in range(len(precision))]
    asked = SimpleNamespace(protocol="A2G", content={"per_query": {"ap": precision}})
    return choose(asked, queries, heights, Report(**options))


def test_the_best_with_fewest_pixels_and_the_worst_with_most():
    precision, heights = [0.5, 1.0, 1.0, None, 0.1, 0.1], np.array([30, 80, 20, 5, 40, 90.0])
    assert chosen(precision, heights=heights)[EXTREMES] == [("Best", 2), ("Worst", 5)]


def test_random_queries_depend_on_the_seed_and_are_others():
    precision = [0.9] + [0.5] * 40 + [0.1] + [None] * 40
    drawn = [chosen(precision, queries=4, seed=seed)[RANDOM] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    for group in drawn:
        positions = [q for _, q in group]
        assert len(set(positions)) == 4
        assert set(positions) <= set(range(1, 41))
    assert chosen([0.5, 0.4, None])[RANDOM] == []


def test_one_query_of_each_capture_point_and_none_of_the_ground():
    group = chosen([0.5] * 40 + [None])[POINTS]
    assert [reason for reason, _ in group] == [f"Capture point {n}" for n in range(1, 19)]
    assert [q % 18 + 1 for _, q in group] == list(range(1, 19))
    assert chosen([0.5] * 9, camera=0)[POINTS] == []


@pytest.mark.parametrize("protocol", ["A2G", "A2A"])
def test_the_lists_are_the_rankings_that_were_measured(results, protocol):
    found = measurement("pooled", protocol)
    rerank = ReRanking(**found.content["rerank"])
    lists = ranked_lists(parsed(top=4), found)
    tracklets = read_split(results.index(protocol))
    queries, gallery = split_protocol(tracklets)
    features = read_features(
        results.features("pooled", 1, protocol), rows=len(tracklets), flip_tta=False
    )
    split = len(queries)
    place = {query.name: q for q, query in enumerate(queries)}
    precision = found.content["per_query"]["ap"]
    assert [len(lists[group]) for group in (EXTREMES, RANDOM)] == [2, 1]
    for shown in chain.from_iterable(lists.values()):
        q = place[shown.query.name]
        for ranking, used in zip(shown.rankings, (None, rerank), strict=True):
            distances = distances_of(features[:split], features[split:], used)[q]
            order = np.argsort(distances, kind="stable")[:4]
            names = [entry.tracklet.name for entry in ranking.entries]
            assert names == [gallery[g].name for g in order]
            shown_distances = [entry.distance for entry in ranking.entries]
            # Products of other sizes are rounded otherwise.
            assert shown_distances == pytest.approx(distances[order].tolist(), abs=1e-5)
            hits = [entry.hit for entry in ranking.entries]
            assert hits == [gallery[g].identity == shown.query.identity for g in order]
            first = ranking.first_hit
            assert shown.positives == sum(g.identity == shown.query.identity for g in gallery)
            assert hits.index(True) + 1 == first if any(hits) else first > 4
        assert shown.rankings[1].ap == pytest.approx(precision[q])
    best, worst = (place[shown.query.name] for shown in lists[EXTREMES])
    assert precision[best] == max(precision)
    assert precision[worst] == min(precision)


def test_junk_is_left_out(results, monkeypatch):
    found = measurement("mean", "A2A")
    _, gallery = split_protocol(read_split(results.index("A2A")))

    def same_camera(tracklets):
        queries, (first, *rest) = split_protocol(tracklets)
        return queries, [replace(first, camera=queries[0].camera), *rest]

    monkeypatch.setattr("reid.report.ranked.split_protocol", same_camera)
    lists = ranked_lists(parsed(top=50, queries=50), found)
    for shown in (*lists[EXTREMES], *lists[RANDOM]):
        (ranking,) = shown.rankings
        left_out = len(gallery) - len(ranking.entries)
        assert left_out == (shown.query.identity == gallery[0].identity)
        assert shown.positives == sum(entry.hit for entry in ranking.entries)


def test_an_index_that_changed_afterwards_is_refused(results):
    found = measurement("mean", "A2G")
    names = found.content["per_query"]["tracklet"]
    content = {**found.content, "per_query": {"tracklet": names[::-1]}}
    with pytest.raises(UserError, match=r"A2G.parquet changed: run `reid retrieve` again"):
        ranked_lists(parsed(), replace(found, content=content))

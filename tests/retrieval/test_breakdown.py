"""Breakdown by capture conditions against direct selection, and intervals against their theory."""

import math

import numpy as np
import pytest

from reid.retrieval.breakdown import HEIGHT_EDGES, Side, breakdown, interval
from tests.retrieval import oracle, worlds


def problem(protocol, *, seed=0):
    tracklets = worlds.protocol_tracklets(protocol, identities=5, tracklets=4)
    queries = [t for t in tracklets if t.subset == "query"]
    gallery = [t for t in tracklets if t.subset == "gallery"]
    rng = np.random.default_rng(seed)
    heights = [rng.uniform(5, 300, len(side)).astype(np.float32) for side in (queries, gallery)]
    distances = rng.random((len(queries), len(gallery)))
    return distances, Side(queries, heights[0]), Side(gallery, heights[1])


def entry(entries, attribute, side, group):
    [found] = [
        e for e in entries if (e["attribute"], e["side"], e["group"]) == (attribute, side, group)
    ]
    return found


def expected(distances, queries, gallery, wanted):
    """(mAP, rank-1) over queries, where `wanted(q, g)` says which positives count."""
    precisions, firsts = [], []
    for q, query in enumerate(queries.tracklets):
        same = {g for g, t in enumerate(gallery.tracklets) if t.identity == query.identity}
        good = {g for g in same if wanted(q, g)}
        if good:
            order = [g for g in oracle.ranking(distances[q]) if g not in same - good]
            precisions.append(oracle.average_precision(order, good))
            firsts.append(order[0] in good)
    return np.mean(precisions), np.mean(firsts)


@pytest.mark.parametrize("protocol", ["A2G", "G2A", "A2A"])
@pytest.mark.parametrize(
    ("attribute", "value_of"),
    [
        ("altitude", lambda t: t.altitude),
        ("distance", lambda t: t.distance),
        ("angle", lambda t: t.angle),
        ("capture point", lambda t: t.capture_point),
        ("session", lambda t: t.session),
    ],
)
def test_groups_of_conditions(protocol, attribute, value_of):
    distances, queries, gallery = problem(protocol)
    entries = breakdown(distances, queries, gallery)
    groups = 0
    for side in (queries, gallery):
        name = "query" if side is queries else "gallery"
        values = {value_of(t) for t in side.tracklets}
        for group in {v for v in values if v is not None and not math.isnan(v)}:
            found = entry(entries, attribute, name, group)
            groups += 1

            def wanted(q, g, group=group, name=name):
                asked = value_of((queries.tracklets[q], gallery.tracklets[g])[name == "gallery"])
                cameras = queries.tracklets[q].camera, gallery.tracklets[g].camera
                return asked == group and cameras[0] != cameras[1]

            mean, rank1 = expected(distances, queries, gallery, wanted)
            assert found["mAP"] == pytest.approx(mean)
            assert found["rank1"] == pytest.approx(rank1)
    assert groups == sum(e["attribute"] == attribute for e in entries)
    assert groups > 0


def test_pixel_height_groups():
    distances, queries, gallery = problem("G2A")
    entries = [
        e for e in breakdown(distances, queries, gallery) if e["attribute"] == "pixel height"
    ]
    assert {e["group"] for e in entries} <= set(HEIGHT_EDGES)
    found = entry(entries, "pixel height", "query", 128)
    inside = (queries.heights >= 128) & (queries.heights < 256)
    mean, _ = expected(distances, queries, gallery, lambda q, g: inside[q])
    assert found["mAP"] == pytest.approx(mean)
    assert found["queries"] == inside.sum()
    without = breakdown(distances, Side(queries.tracklets, None), Side(gallery.tracklets, None))
    assert not [e for e in without if e["attribute"] == "pixel height"]


def test_session_change_compares_positives_of_both_kinds():
    both = [
        worlds.tracklet(identity, camera, number, subset)
        for subset in ("query", "gallery")
        for identity in range(101, 105)
        for camera in (1, 2)
        for number in range(2)
    ]
    queries = Side([t for t in both if t.subset == "query"], None)
    gallery = Side([t for t in both if t.subset == "gallery"], None)
    distances = np.random.default_rng(1).random((16, 16))
    entries = breakdown(distances, queries, gallery)
    for group, equal in (("same session", True), ("other session", False)):
        found = entry(entries, "session change", "pair", group)
        mean, rank1 = expected(
            distances,
            queries,
            gallery,
            lambda q, g, equal=equal: (
                (queries.tracklets[q].session == gallery.tracklets[g].session) == equal
            ),
        )
        assert found["mAP"] == pytest.approx(mean)
        assert found["rank1"] == pytest.approx(rank1)
        assert found["queries"] == 16


def test_session_change_needs_two_known_sessions():
    entries = breakdown(*problem("A2G"))
    assert not [e for e in entries if e["attribute"] == "session change"]


def test_a_group_without_positives_has_no_number():
    tracklets = [worlds.tracklet(101, 1, 3, "query"), worlds.tracklet(102, 2, 4, "gallery")]
    entries = breakdown(np.zeros((1, 1)), Side(tracklets[:1], None), Side(tracklets[1:], None))
    assert entries
    assert all(e["mAP"] is None and e["queries"] == 0 for e in entries)


def test_interval_draws_identities_not_queries():
    """Ten queries of each of 30 people, all equal within a person: thirty draws, not 300."""
    rng = np.random.default_rng(5)
    person = rng.random(30)
    low, high = interval(np.repeat(person, 10), np.repeat(np.arange(30), 10))
    half = 1.96 * person.std() / math.sqrt(30)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert low < person.mean() < high
    assert interval(np.repeat(person, 10), np.repeat(np.arange(30), 10)) == [low, high]


def test_interval_of_a_mean_over_queries_weighs_people_by_their_queries():
    low, high = interval([1.0] * 99 + [0.0], [1] * 99 + [2])
    assert (low, high) == (0.0, 1.0)  # two people: all queries of one or of the other
    assert interval([1.0, 1.0], [1, 1]) is None

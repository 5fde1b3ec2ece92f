"""Breakdown by capture conditions against direct selection, and intervals against their theory."""

import math

import numpy as np
import pytest

from reid.retrieval.breakdown import HEIGHT_EDGES, Side, breakdown, interval
from reid.retrieval.metrics import rank
from reid.retrieval.retrieve import labels
from tests.retrieval import oracle, worlds

VALUES = {
    "altitude": lambda side, row: side.tracklets[row].altitude,
    "distance": lambda side, row: side.tracklets[row].distance,
    "angle": lambda side, row: side.tracklets[row].angle,
    "capture point": lambda side, row: side.tracklets[row].capture_point,
    "session": lambda side, row: side.tracklets[row].session,
    "pixel height": lambda side, row: max(e for e in HEIGHT_EDGES if e <= side.heights[row]),
}


def problem(tracklets):
    """Random distances between the queries and the gallery, with random pixel heights."""
    rng = np.random.default_rng(0)
    sides = []
    for subset in ("query", "gallery"):
        part = [t for t in tracklets if t.subset == subset]
        heights = rng.choice([5, 16, 20, 96, 256, 300], len(part)).astype(np.float32)
        sides.append(Side(part, heights))  # 16: an edge belongs to the group above it
    return rng.random([len(side.tracklets) for side in sides]), *sides


def all_cameras():
    """Every camera on both sides, so that there is junk."""
    return [
        worlds.tracklet(identity, camera, number, subset)
        for subset in ("query", "gallery")
        for identity in range(101, 105)
        for camera in (0, 1, 2)  # of the ground, no session is known
        for number in range(2)
    ]


def entries_of(distances, queries, gallery):
    people = labels(queries.tracklets, gallery.tracklets)
    return breakdown(rank(distances, *people), queries, gallery)


def check(entry, distances, queries, gallery, wanted):
    """Compare queries, mAP and Rank-1, where `wanted(q, g)` says which positives count."""
    precisions, firsts = [], []
    for q, query in enumerate(queries.tracklets):
        same = {g for g, t in enumerate(gallery.tracklets) if t.identity == query.identity}
        good = {g for g in same if wanted(q, g)}
        if good:
            order = [g for g in oracle.ranking(distances[q]) if g not in same - good]
            precisions.append(oracle.average_precision(order, good))
            firsts.append(order[0] in good)
    means = [np.mean(precisions), np.mean(firsts)] if firsts else [None, None]
    got = [entry[key] for key in ("queries", "mAP", "rank1")]
    assert got == pytest.approx([len(firsts), *means])


@pytest.mark.parametrize("protocol", ["A2G", "G2A", "A2A", None])
@pytest.mark.parametrize("attribute", list(VALUES))
def test_groups_of_conditions(protocol, attribute):
    tracklets = protocol and worlds.protocol_tracklets(protocol, identities=5, tracklets=4)
    distances, queries, gallery = problem(tracklets or all_cameras())
    value_of = VALUES[attribute]
    entries = [e for e in entries_of(distances, queries, gallery) if e["attribute"] == attribute]
    for entry in entries:
        asked = entry["side"] == "query"

        def wanted(q, g, entry=entry, asked=asked):
            side, row = (queries, q) if asked else (gallery, g)
            cameras = queries.tracklets[q].camera, gallery.tracklets[g].camera
            return value_of(side, row) == entry["group"] and cameras[0] != cameras[1]

        check(entry, distances, queries, gallery, wanted)
    values = {
        (name, value_of(side, row))
        for name, side in (("query", queries), ("gallery", gallery))
        for row in range(len(side.tracklets))
    }
    groups = [(entry["side"], entry["group"]) for entry in entries]
    assert sorted(groups) == sorted(v for v in values if v[1] is not None and v[1] == v[1])
    assert groups


def test_session_change_compares_positives_of_both_kinds():
    distances, queries, gallery = problem(all_cameras())
    entries = entries_of(distances, queries, gallery)
    changes = {e["group"]: e for e in entries if e["attribute"] == "session change"}
    assert set(changes) == {"same session", "other session"}
    sessions = [[t.session for t in side.tracklets] for side in (queries, gallery)]
    for group, entry in changes.items():

        def wanted(q, g, group=group):
            pair = sessions[0][q], sessions[1][g]
            return None not in pair and (pair[0] == pair[1]) == (group == "same session")

        check(entry, distances, queries, gallery, wanted)
        assert entry["queries"] == 16


def test_what_is_not_known_has_no_group_and_without_positives_there_is_no_number():
    tracklets = [worlds.tracklet(101, 1, 3, "query"), worlds.tracklet(102, 0, 4, "gallery")]
    distances, queries, gallery = problem(tracklets)
    entries = entries_of(distances, Side(queries.tracklets, None), Side(gallery.tracklets, None))
    assert entries
    assert not {"session change", "pixel height"} & {e["attribute"] for e in entries}
    assert all(e["mAP"] is None and e["queries"] == 0 for e in entries)


def test_interval_draws_identities_not_queries():
    """Ten queries of each of 30 people, all equal within a person: thirty draws, not 300."""
    person = np.random.default_rng(5).random(30)
    low, high = interval(np.repeat(person, 10), np.repeat(np.arange(30), 10))
    half = 1.96 * person.std() / math.sqrt(30)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert low < person.mean() < high
    assert interval(np.repeat(person, 10), np.repeat(np.arange(30), 10)) == [low, high]


def test_interval_of_a_mean_over_queries_weighs_people_by_their_queries():
    low, high = interval([1.0] * 99 + [0.0], [1] * 99 + [2])
    assert (low, high) == (0.0, 1.0)  # two people: all queries of one or of the other
    assert interval([1.0, 1.0], [1, 1]) is None

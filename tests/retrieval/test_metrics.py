"""Counting against sorting: mAP, CMC, junk, ties, the expectation of a random ranking."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.errors import UserError
from reid.retrieval.metrics import chance, evaluate, rank, summarize
from tests.retrieval import oracle


@st.composite
def problems(draw):
    """Few distances, identities and cameras: many ties, junk, queries without a positive."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    levels = draw(st.sampled_from([1, 3, 1000]))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int64]))
    distances = (rng.integers(0, levels, (queries, gallery)) - 1).astype(dtype)
    identities = draw(st.sampled_from([1, 4, 30]))
    pids = [rng.integers(0, identities, size) for size in (queries, gallery)]
    cams = [rng.integers(0, 3, size) for size in (queries, gallery)]
    return distances, pids, cams


@settings(max_examples=80)
@given(problems(), st.booleans(), st.booleans())
def test_equals_the_sorting_oracle(problem, with_cameras, trapezoid):
    distances, pids, cams = problem
    labels = (*pids, *(cams if with_cameras else ()))
    got = evaluate(distances, *labels, ap="trapezoid" if trapezoid else "standard")
    ap, first = oracle.evaluate(distances, *labels, trapezoid=trapezoid)
    np.testing.assert_allclose(got.ap_per_query, ap, atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(got.first_rank, first)
    scored = first > 0
    assert got.queries == len(distances)
    assert got.scored == got.queries - got.queries_without_positive == scored.sum()
    assert got.cmc.shape == (distances.shape[1],)
    if scored.any():
        assert got.mAP == pytest.approx(ap[scored].mean(), abs=1e-12)
        for k in (1, 5, 10, 20, 10**6):
            assert got.rank(k) == pytest.approx((first[scored] <= k).mean())
    else:
        assert np.isnan(got.mAP)
        assert np.isnan(got.cmc).all()


def test_equal_distances_rank_by_gallery_order_and_infinite_ones_last():
    assert evaluate(np.zeros((1, 3)), [7], [1, 7, 2]).first_rank[0] == 2
    got = evaluate(np.array([[np.inf, 0.0, np.inf]]), [1], [1, 2, 1])
    assert got.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_one_ranking_serves_every_rule_of_junk():
    rng = np.random.default_rng(1)
    distances = rng.random((20, 50))
    pids, cams = ([rng.integers(0, high, n) for n in (20, 50)] for high in (5, 2))
    ranking = rank(distances, *pids, *cams)
    assert ranking.junk.any()
    everything = summarize(ranking, np.zeros_like(ranking.junk))
    assert everything.mAP == evaluate(distances, *pids).mAP != summarize(ranking).mAP
    nothing = summarize(ranking, np.ones_like(ranking.junk))
    assert nothing.queries_without_positive == 20
    assert np.isnan(nothing.chance)


@pytest.mark.parametrize("ap", ["standard", "trapezoid"])
@pytest.mark.parametrize(("positives", "size"), [(1, 1), (1, 6), (3, 6), (6, 6), (2, 9)])
def test_chance_is_the_mean_over_all_rankings(ap, positives, size):
    """Every placement of the positives is equally likely: average them all."""
    rows = list(combinations(range(size), positives))
    distances = np.arange(size)[None].astype(float)
    values = [
        evaluate(distances, [1], [int(g in row) for g in range(size)], ap=ap).mAP for row in rows
    ]
    assert chance([positives], [size], ap=ap) == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("ap", ["standard", "trapezoid"])
def test_chance_leaves_out_junk(ap):
    distances = np.array(list(permutations(range(6))), np.float64)
    labels = np.ones(len(distances), np.int64), [1, 1, 1, 1, 2, 3]
    got = evaluate(distances, *labels, 0 * labels[0], [0, 0, 1, 1, 0, 1], ap=ap)
    assert got.chance == pytest.approx(got.mAP, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 2)), [1], [1]), r"shape \(1, 2\), expected \(queries, gallery\): \(1, 1\)"),
        ((np.zeros((1, 0)), [1], []), "gallery is empty"),
        ((np.array([[0.0, 1.0], [np.nan, 1.0]]), [1, 1], [1, 1]), "query 1 are not numbers"),
        ((np.zeros((1, 1)), [1], [1], [0]), "together, or neither"),
        ((np.zeros((1, 1)), [1], [1], [0], [0, 1]), "differ in length"),
        ((np.zeros((1, 1)), [1.5], [1]), "query_pids must be a one-dimensional list of integers"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(*arguments)


def test_unknown_rules_are_errors():
    metrics = evaluate(np.zeros((1, 1)), [1], [1])
    with pytest.raises(UserError, match="ap must be one of standard, trapezoid"):
        evaluate(np.zeros((1, 1)), [1], [1], ap="interpolated")
    with pytest.raises(UserError, match="rank must be at least 1"):
        metrics.rank(0)

"""Counting against sorting: mAP, CMC, junk, ties, the expectation of a random ranking."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.errors import UserError
from reid.retrieval.metrics import chance, evaluate, score, score_blocks
from tests.retrieval import oracle

slow = settings(max_examples=80)


@st.composite
def problems(draw):
    """Few distances, identities and cameras: many ties, junk, queries without a positive."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    levels = draw(st.sampled_from([1, 3, 1000]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    distances = (rng.integers(0, levels, (queries, gallery)) - 1).astype(dtype)
    identities = draw(st.sampled_from([1, 4, 30]))
    pids = [rng.integers(0, identities, size) for size in (queries, gallery)]
    cams = [rng.integers(0, 3, size) for size in (queries, gallery)]
    return distances, pids, cams


@slow
@given(problems(), st.booleans(), st.booleans(), st.sampled_from([1, 2]))
def test_equals_the_sorting_oracle(problem, with_cameras, trapezoid, threads):
    distances, pids, cams = problem
    labels = (*pids, *(cams if with_cameras else ()))
    rule = "trapezoid" if trapezoid else "standard"
    got = evaluate(distances, *labels, ap=rule, threads=threads)
    ap, first = oracle.evaluate(distances, *labels, trapezoid=trapezoid)
    np.testing.assert_allclose(got.ap_per_query, ap, atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(got.first_rank, first)
    found = first > 0
    assert got.queries == len(distances)
    assert got.queries_without_positive == int((~found).sum())
    if found.any():
        assert got.mAP == pytest.approx(ap[found].mean(), abs=1e-12)
        for k in (1, 5, 10, 20, 10**6):
            assert got.rank(k) == pytest.approx((first[found] <= k).mean())
        assert got.cmc.shape == (distances.shape[1],)
    else:
        assert np.isnan(got.mAP)
        assert np.isnan(got.cmc).all()


def test_one_pass_holds_both_camera_rules():
    rng = np.random.default_rng(1)
    distances = rng.random((20, 50))
    pids, cams = (
        [rng.integers(0, 5, n) for n in (20, 50)],
        [rng.integers(0, 2, n) for n in (20, 50)],
    )
    scores = score(distances, *pids, *cams)
    for ap in ("standard", "trapezoid"):
        for cameras in (True, False):
            got = scores.metrics(ap=ap, cameras=cameras)
            alone = evaluate(distances, *pids, *(cams if cameras else ()), ap=ap)
            assert got.mAP == alone.mAP
            assert got.chance == alone.chance
            np.testing.assert_array_equal(got.cmc, alone.cmc)


def test_equal_distances_rank_by_gallery_order():
    assert evaluate(np.zeros((1, 3)), [7], [1, 7, 2]).first_rank[0] == 2
    assert evaluate(np.zeros((1, 3)), [7], [7, 1, 2]).first_rank[0] == 1


def test_a_query_without_positive_is_counted_and_not_averaged():
    got = evaluate(np.array([[0.0, 1.0], [0.0, 1.0]]), [1, 9], [1, 2])
    assert got.mAP == 1.0
    assert got.queries_without_positive == 1
    assert np.isnan(got.ap_per_query[1])


def test_infinite_distances_rank_last():
    got = evaluate(np.array([[np.inf, 0.0, np.inf]]), [1], [1, 2, 1])
    assert got.first_rank[0] == 2
    assert got.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_blocks_are_the_whole():
    rng = np.random.default_rng(1)
    distances, pids = rng.random((23, 50)), [rng.integers(0, 5, n) for n in (23, 50)]
    whole = score(distances, *pids).metrics()
    parts = score_blocks((distances[i : i + 4] for i in range(0, 23, 4)), *pids).metrics()
    assert parts.mAP == whole.mAP
    np.testing.assert_array_equal(parts.ap_per_query, whole.ap_per_query)


@pytest.mark.parametrize("ap", ["standard", "trapezoid"])
@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_other_number_types_are_taken(ap, dtype):
    distances = np.random.default_rng(2).integers(0, 50, (5, 9))
    labels = ([1, 1, 2, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2, 3])
    expected = evaluate(distances.astype(np.float64), *labels, ap=ap)
    assert evaluate(distances.astype(dtype), *labels, ap=ap).mAP == expected.mAP


@pytest.mark.parametrize("ap", ["standard", "trapezoid"])
@pytest.mark.parametrize(("positives", "size"), [(1, 1), (1, 6), (3, 6), (6, 6), (2, 9)])
def test_chance_is_the_mean_over_all_rankings(ap, positives, size):
    """Every placement of the positives is equally likely: average them all."""
    rows = list(combinations(range(size), positives))
    distances = np.arange(size)[None].repeat(len(rows), axis=0).astype(float)
    values = [
        evaluate(distances[:1], [1], [int(g in row) for g in range(size)], ap=ap).mAP
        for row in rows
    ]
    assert chance([positives], [size], ap=ap) == pytest.approx(np.mean(values), abs=1e-12)


def test_chance_leaves_out_junk():
    got = evaluate(np.zeros((1, 4)), [1], [1, 1, 2, 2], [0], [0, 1, 1, 1])
    assert got.chance == pytest.approx(chance([1], [3]))


@pytest.mark.parametrize("ap", ["standard", "trapezoid"])
@pytest.mark.parametrize("cameras", [False, True])
def test_chance_is_the_mean_over_all_rankings_whatever_is_junk(ap, cameras):
    distances = np.array(list(permutations(range(6))), np.float64)
    gallery, ignored = [1, 1, 1, 1, 2, 3], np.array([True, False, False, False, True, False])
    labels = (np.ones(len(distances), np.int64), gallery)
    cams = (np.zeros(len(distances), np.int64), [0, 0, 1, 1, 1, 1])
    got = score(distances, *labels, *cams, ignored=ignored).metrics(ap=ap, cameras=cameras)
    assert got.chance == pytest.approx(got.mAP, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 2)), [1], [1]), r"shape \(1, 2\), expected \(queries, 1\)"),
        ((np.zeros((2, 1)), [1], [1]), "more rows than the 1"),
        ((np.zeros((1, 1)), [1, 2], [1]), "1 rows for 2"),
        ((np.zeros((1, 0)), [1], []), "gallery is empty"),
        ((np.array([[np.nan, 1.0]]), [1], [1, 1]), "query 0 are not numbers"),
        ((np.zeros((1, 1)), [1], [1], [0]), "together, or neither"),
        ((np.zeros((1, 1)), [1], [1], [0], [0, 1]), "differ in length"),
        ((np.zeros((1, 1)), [1.5], [1]), "list of integers"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(*arguments)


def test_unknown_rules_are_errors():
    with pytest.raises(UserError, match="ap must be one of standard, trapezoid"):
        evaluate(np.zeros((1, 1)), [1], [1], ap="interpolated")
    with pytest.raises(UserError, match="needs query_cams"):
        score(np.zeros((1, 1)), [1], [1]).metrics(cameras=True)
    with pytest.raises(UserError, match="rank must be at least 1"):
        evaluate(np.zeros((1, 1)), [1], [1]).rank(0)

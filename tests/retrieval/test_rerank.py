"""k-reciprocal re-ranking against the slow oracle, bit by bit on a given matrix, and its modes."""

import sys

import numpy as np
import pytest
import torch  # noqa: F401 - some products are made by torch if it is loaded
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reid.errors import UserError
from reid.retrieval import distances, encoding, neighbors
from reid.retrieval.distances import cosine_blocks
from reid.retrieval.products import WORTH_A_GPU, device_for
from reid.retrieval.rerank import (
    k_reciprocal,
    k_reciprocal_blocks,
    k_reciprocal_of_matrix,
)
from tests.retrieval import oracle

parameters = st.tuples(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1)).filter(
    lambda p: p[1] <= p[0]
)
slow = settings(max_examples=150)


def clustered(queries, gallery, size, *, seed, clusters=None):
    """Gaussian features; around shared centers when `clusters` is given."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((queries + gallery, size))
    if clusters:
        rows *= 0.4
        rows += rng.standard_normal((clusters, size))[rng.integers(0, clusters, len(rows))]
    rows = rows.astype(np.float32)
    return rows[:queries], rows[queries:]


def smallest_gap(features, *, normalize):
    """Least difference of two distances of a row: near-ties are decided by the last bit."""
    rows = features.astype(np.float64)
    if normalize:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ordered = np.sort(oracle.squared_distances(rows), axis=1)
    return np.diff(ordered, axis=1).min() / ordered.max()


@slow
@given(
    parameters,
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, 10**6),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.sampled_from(["float32", "unnormalized"]),
)
@example((28, 6, 0.28), 1, 1, 0, None, True, "float32")
@example((5, 5, 0.3), 1, 1, 0, None, True, "unnormalized")
@example((70, 70, 0.5), 3, 4, 0, 3, True, "float32")
def test_equals_the_oracle_on_features(values, queries, gallery, seed, clusters, normalize, form):
    k1, k2, lambda_value = values
    query, rest = clustered(queries, gallery, 8, seed=seed, clusters=clusters)
    if queries + gallery > 2:
        gap = smallest_gap(np.concatenate([query, rest]), normalize=normalize)
        assume(gap > 1e-5)
    got = k_reciprocal(
        query, rest, k1=k1, k2=k2, lambda_value=lambda_value, normalize=normalize, form=form
    )
    scaled = form == "float32"
    expected = oracle.k_reciprocal(
        query, rest, k1, k2, lambda_value, normalize=normalize, scaled=scaled
    )
    assert got.dtype == np.float32
    # Unscaled squared distances reach 100 here: 1e-5 of that.
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0 if scaled else 1e-5)


@slow
@given(
    parameters,
    st.integers(1, 8),
    st.integers(1, 24),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
@example((28, 6, 0.28), 3, 9, 0, 1, True)
def test_equals_the_oracle_with_ties_and_duplicates(
    values, queries, gallery, seed, levels, normalize
):
    """Entries +-1 .. +-levels in 4 or 16 dimensions: products are exact, so ties are ties.

    With levels 1 the length of a row is a power of two, so normalizing is exact as well.
    """
    k1, k2, lambda_value = values
    rng = np.random.default_rng(seed)
    if normalize:
        levels = 1
    size = (queries + gallery, 4 if levels == 1 else 3)
    rows = (rng.integers(1, levels + 1, size) * rng.choice([-1, 1], size)).astype(np.float32)
    query, rest = rows[:queries], rows[queries:]
    options = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "normalize": normalize}
    expected = oracle.k_reciprocal(query, rest, **options)
    np.testing.assert_allclose(k_reciprocal(query, rest, **options), expected, atol=1e-5, rtol=0)


@slow
@given(st.integers(1, 6), st.integers(2, 20), st.integers(0, 10**6), parameters)
def test_duplicates_of_real_features_tie_by_gallery_order(queries, distinct, seed, values):
    """Exact copies among features of any value: rounding of the product must not order them."""
    k1, k2, lambda_value = values
    query, rest = clustered(queries, distinct, 40, seed=seed)
    gap = smallest_gap(np.concatenate([query, rest]), normalize=True)
    assume(gap > 1e-5)
    order = np.random.default_rng(seed).permutation(2 * distinct)
    doubled = np.concatenate([rest, rest])[order]
    got = k_reciprocal(query, doubled, k1=k1, k2=k2, lambda_value=lambda_value)
    expected = oracle.k_reciprocal(query, doubled, k1, k2, lambda_value)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_identical_features_have_no_distance():
    rows = np.full((7, 33), 0.1, np.float32)
    got = k_reciprocal(rows[:2], rows[2:], k1=20, k2=6, lambda_value=0.3)
    np.testing.assert_allclose(got, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(28, 6, 0.28), (20, 6, 0.3), (25, 1, 0.5), (50, 15, 0.3)]
)
@pytest.mark.parametrize(("form", "storage"), [("released", np.float16), ("float32", np.float32)])
def test_bit_equal_to_the_released_arithmetic_on_a_given_matrix(
    k1, k2, lambda_value, form, storage
):
    query, rest = clustered(60, 180, 32, seed=3, clusters=12)
    rows = np.concatenate([query, rest]) * np.linspace(0.5, 2, 240, dtype=np.float32)[:, None]
    distances = oracle.squared_distances(rows).astype(np.float32)
    got = k_reciprocal_of_matrix(distances, 60, k1=k1, k2=k2, lambda_value=lambda_value, form=form)
    expected = oracle.k_reciprocal_stored(distances, 60, k1, k2, lambda_value, storage=storage)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_an_asymmetric_matrix_is_read_by_columns():
    """The released code divides by column maxima and transposes."""
    rng = np.random.default_rng(0)
    distances = rng.random((40, 40), dtype=np.float32)
    got = k_reciprocal_of_matrix(distances, 10, k1=6, k2=3, lambda_value=0.3)
    expected = oracle.k_reciprocal_stored(distances, 10, 6, 3, 0.3, storage=np.float32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("block", [1, 7, 50, 1024])
@pytest.mark.parametrize("threads", [1, 3])
def test_block_size_and_threads_change_nothing(monkeypatch, block, threads):
    query, rest = clustered(40, 110, 24, seed=5, clusters=9)
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    expected = oracle.k_reciprocal(query, rest, **options)
    monkeypatch.setattr(distances, "TILE", block)
    got = k_reciprocal(query, rest, **options, threads=threads)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("top", [1, 7, 110, 500])
def test_top_is_the_beginning_of_the_ranking(top):
    query, rest = clustered(40, 110, 24, seed=5, clusters=9)
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    full = k_reciprocal(query, rest, **options)
    got = k_reciprocal(query, rest, **options, top=top)
    width = min(top, 110)
    assert got.index.shape == got.distance.shape == (40, width)
    order = np.argsort(full, axis=1, kind="stable")[:, :width]
    np.testing.assert_allclose(got.distance, np.take_along_axis(full, order, 1), atol=1e-6)
    np.testing.assert_array_equal(got.index, order)


def test_top_breaks_ties_by_gallery_order():
    query = np.ones((1, 4), np.float32)
    gallery = np.tile(np.float32([[1, -1, 1, -1], [1, 1, 1, 1]]), (5, 1))
    got = k_reciprocal(query, gallery, k1=2, k2=1, lambda_value=1.0, top=10)
    assert got.index[0].tolist() == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


def test_blocks_and_memmap_hold_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(distances, "STREAM", 800)  # several blocks
    monkeypatch.setattr(distances, "TILE", 7)
    query, rest = clustered(40, 110, 24, seed=5, clusters=9)
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    full = k_reciprocal(query, rest, **options)
    blocks = [block.copy() for block in k_reciprocal_blocks(query, rest, **options)]
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), full)
    stored = np.memmap(tmp_path / "out.bin", np.float32, "w+", shape=full.shape)
    assert k_reciprocal(query, rest, **options, out=stored) is stored
    np.testing.assert_array_equal(stored, full)


@pytest.mark.parametrize("top", [None, 7])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_products_by_torch_give_the_same(top, device, monkeypatch):
    query, rest = clustered(40, 1110, 24, seed=5, clusters=9)
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3, "top": top}
    got = k_reciprocal(query, rest, **options, device=device)
    with monkeypatch.context() as unloaded:
        unloaded.delitem(sys.modules, "torch")
        expected = k_reciprocal(query, rest, **options)
    if top:
        np.testing.assert_array_equal(got.index, expected.index)
        expected, got = expected.distance, got.distance
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_gpu_is_chosen_for_many_rows_or_by_name(monkeypatch):
    for there in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert device_for("cpu", WORTH_A_GPU) is None
        assert device_for("auto", WORTH_A_GPU - 1) is None
        assert device_for("auto", WORTH_A_GPU) == ("cuda" if there else None)
    assert device_for("cuda", 5) == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU"):
        device_for("cuda", 5)


GOOD = {"k1": 5, "k2": 2, "lambda_value": 0.3}
ROWS = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("query", "gallery", "change", "message"),
    [
        (ROWS, ROWS[:, :3], {}, "query features have size 4, gallery features 3"),
        (ROWS, ROWS * np.float32(np.nan), {}, "row 4 are not finite"),
        (np.full_like(ROWS, np.inf), ROWS, {}, "row 0 are not finite"),
        (ROWS, ROWS[:0], {}, "the gallery is empty"),
        (ROWS[:0], ROWS, {}, "the query is empty"),
        (ROWS[0], ROWS, {}, "query features must be"),
        (ROWS, ROWS, {"k2": 6}, "must not exceed k1"),
        (ROWS, ROWS, {"k1": 0}, "at least 1"),
        (ROWS, ROWS, {"k2": 0}, "at least 1"),
        (ROWS, ROWS, {"lambda_value": 1.1}, r"lie in \[0, 1\]"),
        (ROWS, ROWS, {"lambda_value": float("nan")}, r"lie in \[0, 1\]"),
        (ROWS, ROWS, {"form": "float64"}, "form must be one of"),
        (ROWS, ROWS, {"top": 0}, "top must be at least 1"),
        (ROWS, ROWS, {"top": 2.5}, "top must be at least 1"),
        (ROWS, ROWS, {"device": "nonsense"}, "device 'nonsense' cannot hold"),
        (ROWS, ROWS, {"out": np.zeros((4, 4))}, "out must be float32"),
        (ROWS, ROWS, {"out": np.zeros((4, 4), np.float32), "top": 2}, "give one of them"),
        (ROWS, ROWS, {"k1": 5.5}, "k1 must be a whole number"),
        (ROWS, ROWS, {"threads": -1}, "threads must be at least 1"),
        (ROWS.astype(str), ROWS, {}, "query features must be numbers"),
        (ROWS[:, :0], ROWS[:, :0], {}, "size 0"),
        (ROWS * np.float32(1e30), ROWS, {"normalize": False}, "row 0 are too large"),
    ],
)
def test_bad_input_is_one_clear_error(query, gallery, change, message):
    with pytest.raises(UserError, match=message):
        k_reciprocal(query, gallery, **(GOOD | change))


def test_bad_matrix_is_one_clear_error():
    with pytest.raises(UserError, match="not \\(N, N\\)"):
        k_reciprocal_of_matrix(np.zeros((3, 4)), 1, **GOOD)
    with pytest.raises(UserError, match="finite"):
        k_reciprocal_of_matrix(np.full((3, 3), np.nan), 1, **GOOD)


@pytest.mark.parametrize("values", [1, 2, 3, 50, None])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [1, 29, 400])
def test_nearest_of_many_equal_distances_by_lowest_index(values, sign, count):
    rng = np.random.default_rng(0)
    shape = (40, 1000)
    rows = rng.integers(0, values, shape) if values else rng.standard_normal(shape)
    rows = (sign * rows).astype(np.float32)
    pools = neighbors.Pools.empty(len(rows), count)
    pools.offer(rows, slice(0, len(rows)), threads=1)
    found = pools.nearest(threads=1)
    expected = np.argsort(rows, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(found.index, expected)
    np.testing.assert_array_equal(found.distance, np.take_along_axis(rows, expected, axis=1))
    np.testing.assert_array_equal(found.farthest, rows.max(axis=1))


@pytest.fixture(params=["numpy", "torch"])
def products(request, monkeypatch):
    """Products as NumPy makes them, in a process without torch, and as torch does."""
    if request.param == "numpy":
        monkeypatch.delitem(sys.modules, "torch")


@pytest.mark.parametrize(("queries", "distinct"), [(50, 150), (7, 300), (130, 260)])
def test_copies_tie_wherever_they_stand(products, queries, distinct):
    """Products round by place: here rows lie in several tiles, at their edges and within."""
    query, rest = clustered(queries, distinct, 41, seed=3)
    query[3] = rest[5]
    doubled = np.concatenate([rest, rest[: distinct // 2], query[:2]])
    got = k_reciprocal(query, doubled, k1=10, k2=3, lambda_value=0.3)
    expected = oracle.k_reciprocal(query, doubled, 10, 3, 0.3)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    cosine = np.concatenate([block.copy() for block in cosine_blocks(query, doubled)])
    np.testing.assert_array_equal(cosine[:, : distinct // 2], cosine[:, distinct:-2])
    np.testing.assert_array_equal(cosine[0, -2], 0)


def test_the_same_bits_whole_in_blocks_and_by_any_threads(products, monkeypatch):
    monkeypatch.setattr(distances, "STREAM", 2**16)  # several blocks
    query, rest = clustered(600, 900, 40, seed=1, clusters=90)
    rest[70:90] = rest[:20]
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    whole = k_reciprocal(query, rest, **options, threads=1)
    for threads in (1, 2, 3):
        other = k_reciprocal(query, rest, **options, threads=threads)
        np.testing.assert_array_equal(other, whole)
        blocks = k_reciprocal_blocks(query, rest, **options, threads=threads)
        np.testing.assert_array_equal(np.concatenate([block.copy() for block in blocks]), whole)
        first = k_reciprocal(query, rest, **options, top=900, threads=threads)
        np.testing.assert_array_equal(first.index, np.argsort(whole, axis=1, kind="stable"))


def test_a_large_gallery_is_indexed_in_wider_numbers(monkeypatch):
    query, rest = clustered(20, 60, 24, seed=1, clusters=9)
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    small = k_reciprocal(query, rest, **options)
    monkeypatch.setattr(encoding, "FEW", 0)
    np.testing.assert_array_equal(k_reciprocal(query, rest, **options), small)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_what_all_features_share_costs_no_precision(offset, normalize):
    """Rows that are nearly parallel: their products are nearly equal, their differences are not."""
    query, rest = clustered(30, 90, 48, seed=2, clusters=9)
    direction = np.random.default_rng(0).standard_normal(48).astype(np.float32)
    query, rest = query + offset * direction, rest + offset * direction
    options = {"k1": 10, "k2": 3, "lambda_value": 0.3, "normalize": normalize}
    expected = oracle.k_reciprocal(query, rest, **options)
    got = k_reciprocal(query, rest, **options)
    # Features near 1000 hold 4 digits of what they differ by.
    np.testing.assert_allclose(got, expected, atol=1e-5 if offset < 1000 else 2e-4, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_normalized_features_may_have_any_size(scale):
    query, rest = clustered(10, 40, 24, seed=2)
    options = {"k1": 6, "k2": 2, "lambda_value": 0.3}
    expected = k_reciprocal(query, rest, **options)
    got = k_reciprocal(query * np.float32(scale), rest * np.float32(scale), **options)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_a_zero_row_is_at_cosine_distance_one():
    query, rest = clustered(4, 9, 8, seed=0)
    query[1] = rest[2] = 0
    [found] = (block.copy() for block in cosine_blocks(query, rest))
    assert (found[1] == 1).all()
    assert (found[:, 2] == 1).all()
    assert (found[0, :2] != 1).all()

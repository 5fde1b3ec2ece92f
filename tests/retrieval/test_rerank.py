"""k-reciprocal re-ranking and its neighbors against the slow oracle, for all variants."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reid.errors import UserError
from reid.retrieval import distances, neighbors
from reid.retrieval.distances import WORTH_A_GPU, cosine, device_for
from reid.retrieval.rerank import k_reciprocal
from tests.retrieval import oracle

parameters = st.tuples(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1)).filter(
    lambda p: p[1] <= p[0]
)
slow = settings(max_examples=60)


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
def test_equals_the_oracle(values, queries, gallery, seed, clusters, normalize, form):
    k1, k2, lambda_value = values
    query, rest = clustered(queries, gallery, 8, seed=seed, clusters=clusters)
    if queries + gallery > 2:
        gap = smallest_gap(np.concatenate([query, rest]), normalize=normalize)
        assume(gap > 1e-5)
    options = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "normalize": normalize}
    got = k_reciprocal(query, rest, **options, form=form)
    expected = oracle.k_reciprocal(query, rest, **options, form=form)
    assert got.dtype == np.float32
    # Squared distances reach 100 where nothing divides them: 1e-5 of that.
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5 * (form == "unnormalized"))


@pytest.mark.parametrize("k1", [5, 6, 7, 9, 12])
@pytest.mark.parametrize("k2", [1, 2, 4])
@pytest.mark.parametrize("lambda_value", [0.2, 0.7])
def test_many_tiles_and_every_parameter_count(monkeypatch, k1, k2, lambda_value):
    """Overlapping clusters: sets expand, and each of k1, k1 / 2 and k2 changes the result."""
    monkeypatch.setattr(neighbors, "ROWS", 16)
    monkeypatch.setattr(neighbors, "COLUMNS", 24)
    query, rest = clustered(20, 70, 24, seed=5, clusters=9)
    options = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
    expected = oracle.k_reciprocal(query, rest, **options)
    np.testing.assert_allclose(k_reciprocal(query, rest, **options), expected, atol=1e-5, rtol=0)
    for other in ({"k1": k1 + 1}, {"k2": k2 + 1}, {"lambda_value": 1 - lambda_value}):
        assert np.abs(k_reciprocal(query, rest, **(options | other)) - expected).max() > 1e-3


@slow
@given(
    parameters,
    st.integers(1, 8),
    st.integers(1, 24),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.sampled_from([5, 10, 99]),
)
@example((28, 6, 0.28), 3, 9, 0, 1, True, 5)
def test_ties_rank_by_index(values, queries, gallery, seed, levels, normalize, tile):
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "ROWS", 7)
        patch.setattr(neighbors, "COLUMNS", tile)
        got = k_reciprocal(query, rest, **options)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def rounding_product_of(features, device=None):
    rng = np.random.default_rng(0)

    def product(rows, columns):
        exact = features[rows] @ features[columns].T
        return exact + rng.uniform(-3e-7, 3e-7, exact.shape).astype(np.float32)

    return product


@slow
@given(
    st.integers(2, 6),
    st.integers(21, 40),  # no fewer than k1: else all copies are neighbors of all, some mutual
    st.integers(0, 10**6),
    st.tuples(st.integers(2, 20), st.integers(1, 2), st.floats(0, 1)),
)
def test_copies_of_a_row_tie_by_index(queries, distinct, seed, values):
    """Rounding of the matrix product, here exaggerated, must not order copies of a row."""
    k1, k2, lambda_value = values
    query, rest = clustered(queries, distinct, 41, seed=seed)
    assume(smallest_gap(np.concatenate([query, rest]), normalize=True) > 1e-5)
    order = np.random.default_rng(seed).permutation(2 * distinct + 1)
    query[-1] = rest[0]
    doubled = np.concatenate([rest, rest, query[:1]])[order]
    with pytest.MonkeyPatch.context() as patch:
        for module in (distances, neighbors):
            patch.setattr(module, "product_of", rounding_product_of)
        got = k_reciprocal(query, doubled, k1=k1, k2=k2, lambda_value=lambda_value)
        plain = cosine(query, doubled)
    expected = oracle.k_reciprocal(query, doubled, k1, k2, lambda_value)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    places = np.argsort(order)
    one, other = places[:distinct], places[distinct : 2 * distinct]
    np.testing.assert_array_equal(plain[:, one], plain[:, other])
    tied = expected[:, one] == expected[:, other]
    np.testing.assert_array_equal((got[:, one] == got[:, other])[tied], True)


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(28, 6, 0.28), (20, 6, 0.3), (25, 1, 0.5), (50, 15, 0.3)]
)
def test_released_form_has_float16_weights(k1, k2, lambda_value):
    """Integer features, so that distances are exact: nearly all results are the same float."""
    rows = np.round(3 * np.concatenate(clustered(40, 120, 32, seed=3, clusters=8)))
    options = {"k1": k1, "k2": k2, "lambda_value": lambda_value, "normalize": False}
    got = k_reciprocal(rows[:40], rows[40:], **options, form="released")
    expected = oracle.k_reciprocal(rows[:40], rows[40:], **options, form="released")
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert np.mean(np.abs(got - expected) < 1e-6) > 0.99
    float32 = k_reciprocal(rows[:40], rows[40:], **options)
    assert np.mean(np.abs(float32 - expected) < 1e-6) < 0.95


@pytest.mark.parametrize(
    ("normalize", "offset", "scale"),
    [
        (False, 30, 1),
        (False, 1000, 1),
        (True, 30, 1),
        (True, 1000, 1),
        (True, 0, 1e-30),
        (True, 0, 1e30),
    ],
)
def test_nearly_parallel_short_and_long_features_lose_no_precision(normalize, offset, scale):
    query, rest = clustered(30, 90, 48, seed=2, clusters=9)
    direction = np.random.default_rng(0).standard_normal(48)
    query, rest = (np.float32(scale * (side + offset * direction)) for side in (query, rest))
    options = {"k1": 10, "k2": 3, "lambda_value": 0.3, "normalize": normalize}
    expected = oracle.k_reciprocal(query, rest, **options)
    # Features near 1000 hold 4 digits of their differences.
    atol = 1e-5 if offset < 1000 else 2e-4
    np.testing.assert_allclose(k_reciprocal(query, rest, **options), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("device", [None, "cpu"])  # of torch: as on a GPU
def test_devices_give_the_same_and_zero_rows_have_a_distance(device):
    query, rest = clustered(530, 9, 8, seed=0)
    query[1] = rest[2] = 0
    rows = [side.astype(float) for side in (query, rest)]
    rows = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9) for side in rows]
    expected = 1 - rows[0] @ rows[1].T
    np.testing.assert_allclose(cosine(query, rest, device=device), expected, atol=1e-6)
    assert (cosine(query, query, device=device) >= 0).all()
    options = {"k1": 12, "k2": 4, "lambda_value": 0.3}
    expected = oracle.k_reciprocal(query[2:42], rest[3:], **options)
    got = k_reciprocal(query[2:42], rest[3:], **options, device=device)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_cpu_needs_no_torch():
    code = "import sys, reid.retrieval.retrieve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_is_chosen_for_many_rows_or_by_name(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_for("cpu", WORTH_A_GPU) is device_for("auto", WORTH_A_GPU - 1) is None
    assert device_for("cuda", 5) == device_for("auto", WORTH_A_GPU) == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_for("auto", WORTH_A_GPU) is None
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
        (ROWS, ROWS, {"device": "nonsense"}, "device 'nonsense' cannot hold"),
        (ROWS, ROWS, {"k1": 5.5}, "k1 must be a whole number"),
        (ROWS.astype(str), ROWS, {}, "query features must be numbers"),
        (ROWS[:, :0], ROWS[:, :0], {}, "size 0"),
        (ROWS * np.float32(1e30), ROWS, {"normalize": False}, "row 0 are too large"),
    ],
)
def test_bad_input_is_one_clear_error(query, gallery, change, message):
    with pytest.raises(UserError, match=message):
        k_reciprocal(query, gallery, **(GOOD | change))

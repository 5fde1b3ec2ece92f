"""k-reciprocal re-ranking (Zhong et al. 2017; Sec. 3.2.6; MODEL 4.7).

All sets and weights are sparse matrices: about 30 entries in a row, 120 after query expansion.
Memory beside the output is O(N k) and one copy of the features.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from reid.compiled import njit
from reid.errors import UserError
from reid.features.features import Floats
from reid.retrieval.distances import blocks, squared_norms, stack
from reid.retrieval.neighbors import Neighbors, find_neighbors

Form = Literal["float32", "released", "unnormalized"]
"""Variants of the field. `float32`: the released form in float32, as fast-reid and torchreid.
`released`: weights and Jaccard distances are rounded to float16, as in the released code.
`unnormalized`: no division by the farthest distance, and one neighbor fewer (cluster-contrast)."""

PAIRS = 256
"""Pairs of rows whose distances are computed together: their differences stay in the cache."""


def k_reciprocal(
    query: NDArray[Any],
    gallery: NDArray[Any],
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    normalize: bool = True,
    form: Form = "float32",
    device: str | None = None,
) -> Floats:
    """Re-ranked distances (Q, G) float32 of query (Q, D) and gallery (G, D) features.

    k1: neighbors of the reciprocal sets; k2: rows averaged in local query expansion, 1 for none;
    lambda_value: weight of the original distance, which is divided by the largest of its query.
    normalize: False re-ranks features as they are, as the released code does.
    form: see `Form`. device: torch device of the matrix products; None for NumPy on the CPU.
    Raises UserError on features that are not finite or differ in size, an empty query or gallery,
    or parameters out of range.
    """
    check(k1, k2, lambda_value, form)
    features = stack(query, gallery, normalize=normalize)
    neighbors = find_neighbors(features, len(query), k1 + 1, device=device)
    weights = encode(neighbors, features, k1=k1, form=form)
    expanded = expand(weights, neighbors, k2=k2, form=form)
    out = neighbors.cross
    blend(expanded, out, scale_of(neighbors, form), lambda_value=lambda_value, form=form)
    return out


def check(k1: int, k2: int, lambda_value: float, form: str = "float32") -> None:
    """Raise UserError unless 1 <= k2 <= k1, 0 <= lambda_value <= 1 and the form is known."""
    for name, value in (("k1", k1), ("k2", k2)):
        if not isinstance(value, int | np.integer):
            raise UserError(f"{name} must be a whole number, got {value!r}")
    if k1 < 1 or k2 < 1:
        raise UserError(f"k1 ({k1}) and k2 ({k2}) must be at least 1")
    if k2 > k1:
        raise UserError(f"k2 ({k2}) must not exceed k1 ({k1})")
    if not 0 <= lambda_value <= 1:
        raise UserError(f"lambda_value must lie in [0, 1], got {lambda_value}")
    if form not in get_args(Form):
        raise UserError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")


def scale_of(neighbors: Neighbors, form: Form) -> Floats:
    """(N,) what the distances of each row are divided by."""
    if form == "unnormalized":
        return np.ones_like(neighbors.farthest)
    return np.where(neighbors.farthest > 0, neighbors.farthest, np.float32(1))


def encode(neighbors: Neighbors, features: Floats, *, k1: int, form: Form) -> csr_array:
    """(N, N) sparse weights exp(-distance) of the expanded k-reciprocal sets, rows of sum one.

    `neighbors` may hold more neighbors than k1 needs: one search serves a grid of k1.
    """
    near = neighbors.index[:, : k1 + (form != "unnormalized")]
    members = _expanded_sets(near, near[:, : round(k1 / 2) + 1])
    scale = scale_of(neighbors, form)
    distance = neighbors.distance[:, : near.shape[1]]
    known = members * _from_lists(near, np.exp(-distance / scale[:, None]))
    # Members that are in no list of neighbors come from the expansion. They are few.
    rest = coo_array(members - known.astype(bool).astype(np.float32))
    rest.eliminate_zeros()
    rows, columns = rest.coords
    rest.data = np.exp(-_distances_of_pairs(features, rows, columns) / scale[rows])
    weights = csr_array(known + rest)
    weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
    return _stored(weights, form)


def expand(weights: csr_array, neighbors: Neighbors, *, k2: int, form: Form) -> csr_array:
    """Local query expansion: the mean of the weights of each row's k2 nearest, itself the first."""
    if k2 == 1:
        return weights
    near = neighbors.index[:, :k2]
    mean = csr_array(_from_lists(near, np.ones(near.shape, np.float32)) @ weights)
    mean.data /= np.float32(near.shape[1])
    return _stored(mean, form)


def blend(
    weights: csr_array, distances: Floats, scale: Floats, *, lambda_value: float, form: Form
) -> None:
    """Replace squared distances (Q, G) of queries and gallery by re-ranked ones, in place.

    Result: (1 - lambda) (1 - m / (2 - m)) + lambda d / scale, m the sum of the smaller weights.
    """
    half = form == "released"
    share = np.float32(np.float16(1 - lambda_value)) if half else np.float32(1 - lambda_value)
    if half:
        weights.sort_indices()  # sums of rounded numbers depend on their order
    gallery = weights[len(distances) :].tocsc()  # an inverted index
    inverted = (gallery.indptr, gallery.indices, gallery.data)
    arrays = (weights.indptr, weights.indices, weights.data, *inverted)
    _blend_rows(distances, scale, share, np.float32(lambda_value), half, *arrays)


def _expanded_sets(near: NDArray[np.int32], half: NDArray[np.int32]) -> csr_array:
    """(N, N) ones where the column is in R*(row): R(row), and the half-size sets of its members
    of which more than two thirds are in R(row)."""
    reciprocal, candidates = _mutual(near), _mutual(half)
    shared = csr_array(reciprocal * (reciprocal @ candidates.T))
    sizes = np.diff(candidates.indptr)
    shared.data = (3 * shared.data > 2 * sizes[shared.indices]).astype(np.int32)
    members = csr_array(reciprocal + shared @ candidates)
    members.eliminate_zeros()
    members.data = np.ones(members.nnz, np.float32)
    return members


def _mutual(near: NDArray[np.int32]) -> csr_array:
    """(N, N) ones where row and column are in each other's list of neighbors."""
    listed = _from_lists(near, np.ones(near.shape, np.int32))
    return csr_array(listed * listed.T)


def _from_lists(near: NDArray[np.int32], values: NDArray[Any]) -> csr_array:
    """(N, N) sparse matrix with values[i, k] at (i, near[i, k])."""
    size, count = near.shape
    starts = np.arange(0, size * count + 1, count)
    return csr_array((values.ravel(), near.ravel(), starts), shape=(size, size))


def _distances_of_pairs(
    features: Floats, rows: NDArray[np.int32], columns: NDArray[np.int32]
) -> Floats:
    """(P,) squared distances of pairs of rows."""
    out = np.empty(len(rows), np.float32)
    for part in blocks(0, len(rows), PAIRS):
        out[part] = squared_norms(features[rows[part]] - features[columns[part]])
    return out


def _stored(weights: csr_array, form: Form) -> csr_array:
    """Weights with the precision in which the form stores them."""
    if form == "released":
        weights.data = weights.data.astype(np.float16).astype(np.float32)
    return weights


@njit(nogil=True)
def _round_half(value: Any) -> Any:  # pragma: no cover - compiled
    """A float32 rounded to the 11 significant bits of float16 (Veltkamp's splitting)."""
    return value * np.float32(8193) - (value * np.float32(8193) - value)


@njit(nogil=True, error_model="numpy")
def _blend_rows(
    distances: Any,
    scale: Any,
    jaccard_share: Any,
    distance_share: Any,
    half: bool,
    starts: Any,
    columns: Any,
    weights: Any,
    gallery_starts: Any,
    gallery_rows: Any,
    gallery_weights: Any,
) -> None:  # pragma: no cover - compiled
    """See `blend`: Jaccard distances over an inverted index of the gallery."""
    one, two = np.float32(1), np.float32(2)
    overlap = np.empty(distances.shape[1], np.float32)
    for q in range(len(distances)):
        overlap[:] = 0
        for p in range(starts[q], starts[q + 1]):
            for e in range(gallery_starts[columns[p]], gallery_starts[columns[p] + 1]):
                total = overlap[gallery_rows[e]] + min(weights[p], gallery_weights[e])
                overlap[gallery_rows[e]] = _round_half(total) if half else total
        row = distances[q]
        for g in range(row.size):
            if half:
                ratio = _round_half(overlap[g] / _round_half(two - overlap[g]))
                jaccard = _round_half(_round_half(one - ratio) * jaccard_share)
            else:
                jaccard = (one - overlap[g] / (two - overlap[g])) * jaccard_share
            row[g] = jaccard + row[g] / scale[q] * distance_share

"""k-reciprocal re-ranking (Zhong et al. 2017; Sec. 3.2.6; MODEL 4.7), exact and sparse.

Never an (N, N) matrix: distances come in blocks (`neighbors`), the encoding is sparse
(`encoding`), the Jaccard distance runs over an inverted index (`jaccard`). Memory is
O(N k) and one copy of the features, beside the output.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.features.features import Floats, stack
from reid.retrieval import jaccard, neighbors
from reid.retrieval.distances import Distances, row_blocks
from reid.retrieval.encoding import Form, encode
from reid.retrieval.pairs import pairs_of_features
from reid.retrieval.threads import cores


@dataclass(frozen=True)
class Ranking:
    """The first m gallery positions of each query, nearest first, ties by gallery order."""

    index: NDArray[np.int32]  # (Q, m)
    distance: Floats  # (Q, m)


@overload
def k_reciprocal(
    query: NDArray[Any],
    gallery: NDArray[Any],
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    normalize: bool = True,
    form: Form = "float32",
    top: None = None,
    out: Floats | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Floats: ...


@overload
def k_reciprocal(
    query: NDArray[Any],
    gallery: NDArray[Any],
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    normalize: bool = True,
    form: Form = "float32",
    top: int,
    device: str | None = None,
    threads: int | None = None,
) -> Ranking: ...


def k_reciprocal(
    query: NDArray[Any],
    gallery: NDArray[Any],
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    normalize: bool = True,
    form: Form = "float32",
    top: int | None = None,
    out: Floats | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Floats | Ranking:
    """Re-ranked distances (Q, G) float32 of query (Q, D) and gallery (G, D) features.

    k1: neighbors of the reciprocal sets; k2: rows of the local query expansion, 1 for none;
    lambda_value: weight of the original distance, divided by the query's largest.
    normalize: False re-ranks features as they are, as the released code does.
    form: variant of the field (`reid.retrieval.encoding.Form`).
    top: return the first `top` of each ranking instead; the (Q, G) output is never stored.
    out: float32 (Q, G) array to fill, for example a `numpy.memmap`.
    device: torch device of the matrix products, such as `cuda`; without it the CPU.
    Raises UserError on features that are not finite or differ in size, an empty side, or
    parameters out of range.
    """
    check(k1, k2, lambda_value, form)
    workers = cores(threads)
    features = stack(query, gallery, normalize=normalize)
    distances = Distances(features, device)
    queries, positions = len(query), len(gallery)
    if top is not None and out is not None:
        raise UserError("top keeps no distances to put in out: give one of them")
    if top is not None:
        blocks = _blocks(distances, features, queries, k1, k2, lambda_value, form, workers)
        return first_of_blocks(blocks, queries, positions, top, threads=workers)
    if out is None:
        out = np.empty((queries, positions), np.float32)
    elif out.shape != (queries, positions) or out.dtype != np.float32 or not out.flags.writeable:
        raise UserError(f"out must be float32 of shape {(queries, positions)}, to be written to")
    near = neighbors.nearest(distances, _list_size(k1, features), cross=out, threads=workers)
    pairs = pairs_of_features(features, distances.norms, near, threads=workers)
    encoding = encode(near, pairs, queries=queries, k1=k1, k2=k2, form=form, threads=workers)
    jaccard.blend(encoding, out, lambda_value=lambda_value, form=form, threads=workers)
    return out


def k_reciprocal_blocks(
    query: NDArray[Any],
    gallery: NDArray[Any],
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    normalize: bool = True,
    form: Form = "float32",
    device: str | None = None,
    threads: int | None = None,
) -> Iterator[Floats]:
    """As `k_reciprocal`, yielding consecutive (rows, G) blocks of queries.

    Each block is overwritten by the next: use or copy it first. Costs one more product of
    queries and gallery than `k_reciprocal`, and no (Q, G) memory.
    """
    check(k1, k2, lambda_value, form)
    features = stack(query, gallery, normalize=normalize)
    workers = cores(threads)
    distances = Distances(features, device)
    return _blocks(distances, features, len(query), k1, k2, lambda_value, form, workers)


def k_reciprocal_of_matrix(
    distances: NDArray[Any],
    queries: int,
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    form: Form = "float32",
    threads: int | None = None,
) -> Floats:
    """As `k_reciprocal`, for given squared distances (N, N) of `queries` queries and the gallery.

    Exact to the last bit of the released code, in the arithmetic of `form`.
    """
    check(k1, k2, lambda_value, form)
    matrix = np.asarray(distances, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 0 < queries < len(matrix):
        raise UserError(f"distances of shape {matrix.shape} with {queries} queries are not (N, N)")
    if not np.isfinite(matrix).all():
        raise UserError("distances must be finite")
    workers = cores(threads)
    near = neighbors.nearest_of_matrix(matrix, _list_size(k1, matrix), threads=workers)

    def pairs(offsets: NDArray[np.int64], columns: NDArray[np.int32], _: int) -> Floats:
        return matrix[columns, np.repeat(np.arange(len(matrix)), np.diff(offsets))]

    encoding = encode(near, pairs, queries=queries, k1=k1, k2=k2, form=form, threads=workers)
    out = np.ascontiguousarray(matrix[queries:, :queries].T)
    jaccard.blend(encoding, out, lambda_value=lambda_value, form=form, threads=workers)
    return out


def check(k1: int, k2: int, lambda_value: float, form: Form = "float32") -> None:
    """Raise UserError unless the parameters are in range: 1 <= k2 <= k1, 0 <= lambda <= 1."""
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


def _list_size(k1: int, rows: NDArray[Any]) -> int:
    return min(k1 + 1, len(rows))


def _blocks(
    distances: Distances,
    features: Floats,
    queries: int,
    k1: int,
    k2: int,
    lambda_value: float,
    form: Form,
    threads: int,
) -> Iterator[Floats]:
    near = neighbors.nearest(distances, _list_size(k1, features), threads=threads)
    pairs = pairs_of_features(features, distances.norms, near, threads=threads)
    encoding = encode(near, pairs, queries=queries, k1=k1, k2=k2, form=form, threads=threads)
    gallery = slice(queries, len(features))
    for rows, block in row_blocks(queries, len(features) - queries):
        distances.fill(block, rows, gallery, threads=threads)
        jaccard.blend(
            encoding, block, first=rows.start, lambda_value=lambda_value, form=form, threads=threads
        )
        yield block


def first_of_blocks(
    blocks: Iterator[Floats], queries: int, positions: int, top: int, *, threads: int | None = None
) -> Ranking:
    """The first `top` of each ranking, from consecutive (rows, positions) blocks of queries."""
    if not isinstance(top, int | np.integer) or top < 1:
        raise UserError(f"top must be at least 1 and whole, got {top}")
    workers = cores(threads)
    best = neighbors.Pools.empty(queries, min(top, positions))
    first = 0
    for block in blocks:
        best.offer(block, slice(first, first + len(block)), threads=workers)
        first += len(block)
    nearest = best.nearest(threads=workers)
    return Ranking(nearest.index, nearest.distance)

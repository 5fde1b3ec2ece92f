"""k-reciprocal encoding: each row as a sparse distribution over its k-reciprocal neighbors.

Zhong et al. 2017 in the form of MODEL 4.7: mutual neighbors, expansion by the 2/3 rule, weights
exp(-distance) normalized to sum one, local query expansion. Rows are kept sparse (about 30
entries, 120 after expansion), the gallery's as an inverted index.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reid.features.features import Floats
from reid.retrieval.neighbors import Neighbors
from reid.retrieval.sets import (
    average,
    count_columns,
    expand_sets,
    list_by_column,
    mutual,
    sum_rows,
)
from reid.retrieval.threads import over_rows

Form = Literal["float32", "released", "unnormalized"]
"""Variants of the field. `float32`: the released form in float32, as fast-reid and torchreid.
`released`: with the float16 storage and arithmetic of the released code, bit by bit.
`unnormalized`: no division by the farthest distance and one neighbor fewer (cluster-contrast)."""

FEW = 1 << 16
"""Gallery rows that 16 bits tell apart: a smaller index is read faster. Its positions are unsigned,
which spares tests for negative ones."""

Ints = NDArray[np.int32]
PairDistances = Callable[[NDArray[np.int64], Ints, int], Floats]
"""(offsets (N + 1,), columns) of sparse rows, and the size of the neighbor lists that k1 asks for
-> squared distance of each (row, column) pair."""


@dataclass(frozen=True)
class Sparse:
    """Sparse rows: row i is columns[starts[i] : stops[i]] with the values alongside."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    columns: NDArray[np.integer]
    values: Floats

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The fields, in the order the kernels take them."""
        return self.starts, self.stops, self.columns, self.values


@dataclass(frozen=True)
class Encoding:
    """What the Jaccard distance needs: rows of the queries, inverted index of the gallery."""

    queries: Sparse  # columns ascending within a row
    gallery: Sparse  # row = encoding column, `columns` = gallery positions
    farthest: Floats  # (Q,) scale of the original distances; ones where the form has none


@dataclass(frozen=True)
class Weights:
    """Rows before query expansion, and what it needs: the neighbor lists and the scale."""

    rows: Sparse
    near: Ints  # (N, k)
    scale: Floats  # (N,)


def encode(
    neighbors: Neighbors,
    pair_distances: PairDistances,
    *,
    queries: int,
    k1: int,
    k2: int,
    form: Form,
    threads: int,
) -> Encoding:
    """Encode all rows; the first `queries` are the queries, the others the gallery.

    `neighbors` may hold longer lists than k1 asks for: the same ones serve a grid of k1.
    """
    weights = weigh(neighbors, pair_distances, k1=k1, form=form, threads=threads)
    return expand(weights, queries=queries, k2=k2, form=form, threads=threads)


def weigh(
    neighbors: Neighbors, pair_distances: PairDistances, *, k1: int, form: Form, threads: int
) -> Weights:
    """Expanded k-reciprocal sets of all rows and the weights of their members."""
    fewer = form == "unnormalized"
    near = np.ascontiguousarray(neighbors.index[:, : k1 + (not fewer)])
    half = np.ascontiguousarray(near[:, : round(k1 / 2) + 1])
    offsets, columns = _expanded_sets(near, half, threads)
    scale = np.ones_like(neighbors.farthest) if fewer else neighbors.farthest
    scale = np.where(scale > 0, scale, np.float32(1))

    values = pair_distances(offsets, columns, k1 + 1)
    values /= np.repeat(scale, np.diff(offsets))
    np.negative(values, out=values)
    np.exp(values, out=values)
    sums = np.empty(len(near), np.float32)
    over_rows(sum_rows, len(near), offsets, values, sums, threads=threads)
    values /= np.repeat(sums, np.diff(offsets))
    rows = Sparse(offsets[:-1], offsets[1:], columns, _stored(values, form))
    return Weights(rows, near, scale)


def expand(weights: Weights, *, queries: int, k2: int, form: Form, threads: int) -> Encoding:
    """Average each row with those of its k2 nearest (itself the first), and invert the gallery."""
    rows = weights.rows
    if k2 > 1:
        rows = _query_expansion(rows, weights.near[:, :k2], queries, form, threads)
    return Encoding(
        queries=Sparse(rows.starts[:queries], rows.stops[:queries], rows.columns, rows.values),
        gallery=_by_column(rows, queries, threads),
        farthest=weights.scale[:queries],
    )


def _stored(values: Floats, form: Form) -> Floats:
    """Values as the form stores them: the released code keeps float16."""
    return values.astype(np.float16).astype(np.float32) if form == "released" else values


def _expanded_sets(near: Ints, half: Ints, threads: int) -> tuple[NDArray[np.int64], Ints]:
    lists, sizes = np.empty_like(near), np.empty(len(near), np.int64)
    half_lists, half_sizes = np.empty_like(half), np.empty(len(half), np.int64)
    over_rows(mutual, len(near), near, lists, sizes, threads=threads)
    over_rows(mutual, len(near), half, half_lists, half_sizes, threads=threads)
    return _two_pass(expand_sets, len(near), threads, lists, sizes, half_lists, half_sizes)


def _query_expansion(rows: Sparse, near: Ints, queries: int, form: Form, threads: int) -> Sparse:
    near = np.ascontiguousarray(near)
    # Room for rows without a common column; what stays empty is not looked at.
    room = (rows.stops - rows.starts)[near].sum(axis=1)
    stops = np.cumsum(room)
    starts = stops - room
    columns = np.empty(stops[-1], np.int32)
    values = np.empty(stops[-1], np.float32)
    result = Sparse(starts, stops, columns, values)
    options = (near, queries, form == "released")
    over_rows(average, len(near), *rows.arrays(), *options, *result.arrays(), threads=threads)
    return result


def _by_column(rows: Sparse, queries: int, threads: int) -> Sparse:
    """Rows from `queries` on, listed by column; `columns` of the result are their positions."""
    counts = np.zeros((threads, len(rows.starts)), np.int64)
    structure = (rows.starts, rows.stops, rows.columns)
    over_rows(count_columns, threads, *structure, queries, counts, threads=threads)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    places = offsets[:-1] + np.cumsum(counts, axis=0) - counts
    few = len(rows.starts) - queries <= FEW
    positions = np.empty(offsets[-1], np.uint16 if few else np.uint32)
    weights = np.empty(offsets[-1], np.float32)
    filled = (places, positions, weights)
    over_rows(list_by_column, threads, *structure, rows.values, queries, *filled, threads=threads)
    return Sparse(offsets[:-1], offsets[1:], positions, weights)


def _two_pass(
    kernel: Callable[..., None], rows: int, threads: int, *inputs: Any
) -> tuple[NDArray[np.int64], Ints]:
    """Run a kernel that makes sparse rows: first to count their entries, then to fill them."""
    offsets = np.zeros(rows + 1, np.int64)
    over_rows(kernel, rows, *inputs, offsets, np.empty(0, np.int32), threads=threads)
    np.cumsum(offsets, out=offsets)
    columns = np.empty(offsets[-1], np.int32)
    over_rows(kernel, rows, *inputs, offsets, columns, threads=threads)
    return offsets, columns

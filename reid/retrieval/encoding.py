"""k-reciprocal encoding: each row as a sparse distribution over its k-reciprocal neighbours.

Zhong et al. 2017 in the form of MODEL 4.7: mutual neighbours, expansion by the 2/3 rule, weights
exp(-distance) normalised to sum one, local query expansion. Rows are kept sparse (about 30
entries, 120 after expansion), the gallery's as an inverted index.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.retrieval.features import Floats
from reid.retrieval.float16 import round_half
from reid.retrieval.neighbours import Neighbours
from reid.retrieval.threads import over_rows

Form = Literal["float32", "released", "unnormalised"]
"""Variants of the field. `float32`: the released form in float32, as fast-reid and torchreid.
`released`: with the float16 storage and arithmetic of the released code, bit by bit.
`unnormalised`: no division by the farthest distance and one neighbour fewer (cluster-contrast)."""

Ints = NDArray[np.int32]
PairDistances = Callable[[NDArray[np.int64], Ints], Floats]
"""(offsets (N + 1,), columns) of sparse rows -> squared distance of each (row, column) pair."""


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
    """Rows before query expansion, and what it needs: the neighbour lists and the scale."""

    rows: Sparse
    near: Ints  # (N, k)
    scale: Floats  # (N,)


def encode(
    neighbours: Neighbours,
    pair_distances: PairDistances,
    *,
    queries: int,
    k1: int,
    k2: int,
    form: Form,
    threads: int,
) -> Encoding:
    """Encode all rows; the first `queries` are the queries, the others the gallery.

    `neighbours` may hold longer lists than k1 asks for: the same ones serve a grid of k1.
    """
    weights = weigh(neighbours, pair_distances, k1=k1, form=form, threads=threads)
    return expand(weights, queries=queries, k2=k2, form=form, threads=threads)


def weigh(
    neighbours: Neighbours, pair_distances: PairDistances, *, k1: int, form: Form, threads: int
) -> Weights:
    """Expanded k-reciprocal sets of all rows and the weights of their members."""
    fewer = form == "unnormalised"
    near = np.ascontiguousarray(neighbours.index[:, : k1 + (not fewer)])
    half = np.ascontiguousarray(near[:, : round(k1 / 2) + 1])
    offsets, columns = _expanded_sets(near, half, threads)
    scale = np.ones_like(neighbours.farthest) if fewer else neighbours.farthest
    scale = np.where(scale > 0, scale, np.float32(1))

    values = pair_distances(offsets, columns)
    values /= np.repeat(scale, np.diff(offsets))
    np.negative(values, out=values)
    np.exp(values, out=values)
    sums = np.empty(len(near), np.float32)
    over_rows(_sum_rows, len(near), offsets, values, sums, threads=threads)
    values /= np.repeat(sums, np.diff(offsets))
    rows = Sparse(offsets[:-1], offsets[1:], columns, _stored(values, form))
    return Weights(rows, near, scale)


def expand(weights: Weights, *, queries: int, k2: int, form: Form, threads: int) -> Encoding:
    """Average each row with those of its k2 nearest (itself the first), and invert the gallery."""
    rows = weights.rows
    if k2 > 1:
        rows = _query_expansion(rows, weights.near[:, :k2], queries, form, threads)
    index = _invert(rows.starts, rows.stops, rows.columns, rows.values, queries)
    offsets, positions, weights_of = index
    return Encoding(
        queries=Sparse(rows.starts[:queries], rows.stops[:queries], rows.columns, rows.values),
        gallery=Sparse(offsets[:-1], offsets[1:], positions, weights_of),
        farthest=weights.scale[:queries],
    )


def _stored(values: Floats, form: Form) -> Floats:
    """Values as the form stores them: the released code keeps float16."""
    return values.astype(np.float16).astype(np.float32) if form == "released" else values


def _expanded_sets(near: Ints, half: Ints, threads: int) -> tuple[NDArray[np.int64], Ints]:
    mutual, mutual_half = np.empty_like(near), np.empty_like(half)
    sizes, sizes_half = np.empty(len(near), np.int64), np.empty(len(near), np.int64)
    over_rows(_mutual, len(near), near, mutual, sizes, threads=threads)
    over_rows(_mutual, len(near), half, mutual_half, sizes_half, threads=threads)
    sets = (mutual, sizes, mutual_half, sizes_half)
    return _two_pass(_expand, len(near), threads, *sets)


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
    over_rows(_average, len(near), *rows.arrays(), *options, *result.arrays(), threads=threads)
    return result


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


@njit(cache=True, nogil=True)
def _mutual(
    start: int, stop: int, near: Any, mutual: Any, sizes: Any
) -> None:  # pragma: no cover - compiled
    """R(i): those neighbours j of i, in rank order, that have i among theirs."""
    for i in range(start, stop):
        size = 0
        for j in near[i]:
            theirs = near[j]
            found = np.int32(0)
            for c in range(theirs.size):
                found = np.int32(found + np.int32(theirs[c] == i))
            if found:
                mutual[i, size] = j
                size += 1
        sizes[i] = size


@njit(cache=True, nogil=True)
def _expand(
    start: int,
    stop: int,
    mutual: Any,
    sizes: Any,
    mutual_half: Any,
    sizes_half: Any,
    offsets: Any,
    columns: Any,
) -> None:  # pragma: no cover - compiled
    """R*(i): R(i) and the half-size sets of its members that overlap it by more than 2/3.

    With empty `columns` it stores the size of each set in offsets[i + 1].
    """
    member = np.full(sizes.size, -1, np.int32)  # last row whose R(i) held it
    chosen = np.full(sizes.size, -1, np.int32)
    found = np.empty(sizes.size, np.int32)
    for i in range(start, stop):
        own = mutual[i, : sizes[i]]
        count = 0
        for c in own:
            member[c] = i
            chosen[c] = i
            found[count] = c
            count += 1
        for c in own:
            other = mutual_half[c, : sizes_half[c]]
            shared = 0
            for j in other:
                shared += member[j] == i
            if 3 * shared > 2 * other.size:
                for j in other:
                    if chosen[j] != i:
                        chosen[j] = i
                        found[count] = j
                        count += 1
        if columns.size == 0:
            offsets[i + 1] = count
        else:
            columns[offsets[i] : offsets[i + 1]] = np.sort(found[:count])


@njit(cache=True, nogil=True)
def _pairwise_sum(values: Any) -> Any:  # pragma: no cover - compiled
    """float32 sum in the order of NumPy's, so that the released weights are met bit by bit."""
    size = values.size
    if size < 8:
        total = np.float32(0)
        for value in values:
            total += value
        return total
    if size > 128:
        middle = size // 2
        middle -= middle % 8
        return _pairwise_sum(values[:middle]) + _pairwise_sum(values[middle:])
    lane = values[:8].copy()
    whole = size - size % 8
    for left in range(8, whole, 8):
        for k in range(8):
            lane[k] += values[left + k]
    total = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + (
        (lane[4] + lane[5]) + (lane[6] + lane[7])
    )
    for j in range(whole, size):
        total += values[j]
    return total


@njit(cache=True, nogil=True)
def _sum_rows(
    start: int, stop: int, offsets: Any, values: Any, sums: Any
) -> None:  # pragma: no cover - compiled
    for i in range(start, stop):
        sums[i] = _pairwise_sum(values[offsets[i] : offsets[i + 1]])


@njit(cache=True, nogil=True)
def _average(
    start: int,
    stop: int,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    near: Any,
    queries: int,
    half: bool,
    new_starts: Any,
    new_stops: Any,
    new_columns: Any,
    new_values: Any,
) -> None:  # pragma: no cover - compiled
    """Local query expansion: mean of the neighbours' rows, added in rank order.

    Lowers new_stops to the end of each row. Only queries need their columns ascending.
    """
    total = np.zeros(near.shape[0], np.float32)
    seen = np.full(near.shape[0], -1, np.int32)
    divisor = np.float32(near.shape[1])
    for i in range(start, stop):
        found = new_columns[new_starts[i] : new_stops[i]]
        count = 0
        for j in near[i]:
            for p in range(starts[j], stops[j]):
                column = columns[p]
                if seen[column] != i:
                    seen[column] = i
                    found[count] = column
                    count += 1
                total[column] += values[p]
        found = found[:count]
        if i < queries:
            found.sort()
        result = new_values[new_starts[i] : new_starts[i] + count]
        for p in range(count):
            mean = total[found[p]] / divisor
            result[p] = round_half(mean) if half else mean
            total[found[p]] = np.float32(0)
        new_stops[i] = new_starts[i] + count


@njit(cache=True, nogil=True)
def _invert(
    starts: Any, stops: Any, columns: Any, values: Any, queries: int
) -> tuple[Any, Any, Any]:  # pragma: no cover - compiled
    """Rows from `queries` on, listed by column: (offsets by column, position, value)."""
    size = starts.size
    offsets = np.zeros(size + 1, np.int64)
    for i in range(queries, size):
        for p in range(starts[i], stops[i]):
            offsets[columns[p] + 1] += 1
    for c in range(size):
        offsets[c + 1] += offsets[c]
    fill = offsets[:-1].copy()
    rows = np.empty(offsets[size], np.uint32)  # unsigned: no test for negative indices
    weights = np.empty(offsets[size], np.float32)
    for i in range(queries, size):
        for p in range(starts[i], stops[i]):
            place = fill[columns[p]]
            rows[place] = i - queries
            weights[place] = values[p]
            fill[columns[p]] = place + 1
    return offsets, rows, weights

"""Nearest neighbours of every row among all rows, without an (N, N) matrix (SPEED.md 1).

Squared Euclidean distances come in blocks of the upper triangle only: one matrix product serves
the rows of one side and, transposed, those of the other. Blocks come in any order, whatever core
is free takes the next one; ties go to the lowest index by comparison, not by order of arrival.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.retrieval.features import Floats
from reid.retrieval.products import Products
from reid.retrieval.threads import over_pairs, over_rows

BLOCK = 512
"""Rows of a distance block: 1 MiB of float32, which stays in the cache of a core."""

CHUNK = 64
"""Entries that a scan looks at together."""

NOISE = np.float32(4e-6)
"""Squared distances below this share of the squared norms are rounding errors of the product:
they count as zero, so that duplicates tie exactly."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each of N rows, itself among them, ties by lowest index.

    index: (N, k) int32, nearest first. distance: (N, k) squared Euclidean.
    farthest: (N,) squared distance of the farthest row.
    """

    index: NDArray[np.int32]
    distance: Floats
    farthest: Floats


def nearest(
    products: Products, count: int, *, cross: Floats | None = None, threads: int
) -> Neighbours:
    """The `count` <= N nearest rows of each row of the features (N, D) of `products`.

    cross: (Q, G) array with Q + G = N, filled with the distances from the first Q rows to the
    others while they are at hand.
    """
    size = len(products.features)
    norms = squared_norms(products.features)
    lists = RunningLists.empty(size, count)
    parts = [slice(top, min(top + BLOCK, size)) for top in range(0, size, BLOCK)]
    buffers = np.empty((threads, BLOCK * BLOCK), np.float32)

    def work(worker: int, a: int, b: int) -> None:
        rows, columns = parts[a], parts[b]
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        block = buffers[worker, : shape[0] * shape[1]].reshape(shape)
        products(rows, columns, block)
        of_rows, of_columns = lists.part(rows), lists.part(columns)
        _to_distances(0, shape[0], block, norms[rows], norms[columns])
        _scan_rows(0, shape[0], block, columns.start, *of_rows)
        if a < b:
            _scan_columns(0, shape[0], block, rows.start, *of_columns)
        if cross is not None:
            _copy_cross(block, rows, columns, cross)

    with products.in_own_threads():
        over_pairs(work, len(parts), threads=threads)
    return Neighbours(lists.index, lists.distance, lists.farthest)


def nearest_of_matrix(distances: NDArray[Any], count: int, *, threads: int) -> Neighbours:
    """As `nearest`, for given squared distances (N, N): column j holds the distances from j."""
    size = len(distances)
    lists = RunningLists.empty(size, count)
    for top in range(0, size, BLOCK):
        rows = slice(top, min(top + BLOCK, size))
        block = np.ascontiguousarray(distances[:, rows].T, dtype=np.float32)
        lists.offer(block, rows, threads=threads)
    return Neighbours(lists.index, lists.distance, lists.farthest)


def squared_norms(features: Floats) -> Floats:
    """(N,) squared length of each row, with no (N, D) temporary."""
    norms: Floats = np.einsum("nd,nd->n", features, features)
    return norms


def cross_distances(
    products: Products, first: int, queries: int, out: Floats, *, threads: int
) -> None:
    """Squared Euclidean distances of rows from `first` on to the rows after `queries`.

    out: (rows, N - queries), filled.
    """
    columns = slice(queries, len(products.features))
    rows_of = products.features[first : first + len(out)]
    norms = squared_norms(rows_of), squared_norms(products.features[columns])

    def part(start: int, stop: int) -> None:
        products(slice(first + start, first + stop), columns, out[start:stop])
        _to_distances(start, stop, out, *norms)

    with products.in_own_threads():
        over_rows(part, len(out), threads=threads)


@dataclass(frozen=True)
class RunningLists:
    """Sorted lists of the smallest entries of rows under construction.

    limit: the last entry of each list; farthest: the largest entry that the row has met.
    """

    index: NDArray[np.int32]
    distance: Floats
    limit: Floats
    farthest: Floats

    @classmethod
    def empty(cls, size: int, count: int) -> "RunningLists":
        """`size` lists that will hold the `count` smallest."""
        return cls(
            np.full((size, count), -1, np.int32),
            np.full((size, count), np.inf, np.float32),
            np.full(size, np.inf, np.float32),
            np.full(size, -np.inf, np.float32),
        )

    def part(self, rows: slice) -> tuple[NDArray[Any], ...]:
        """Views of some of the lists, in the order the kernels take them."""
        return (self.index[rows], self.distance[rows], self.limit[rows], self.farthest[rows])

    def offer(self, block: Floats, rows: slice, *, first_column: int = 0, threads: int) -> None:
        """Offer every entry of `block` to the list of its row."""
        over_rows(_scan_rows, len(block), block, first_column, *self.part(rows), threads=threads)


def _copy_cross(block: Floats, rows: slice, columns: slice, cross: Floats) -> None:
    """Copy the query x gallery part of a block of the upper triangle into `cross`."""
    queries = len(cross)
    last_row = min(rows.stop, queries)
    first_column = max(columns.start, queries)
    if rows.start < last_row and first_column < columns.stop:
        cross[rows.start : last_row, first_column - queries : columns.stop - queries] = block[
            : last_row - rows.start, first_column - columns.start :
        ]


@njit(cache=True, nogil=True)
def _to_distances(
    start: int, stop: int, block: Any, row_norms: Any, column_norms: Any
) -> None:  # pragma: no cover - compiled
    """Turn inner products into squared distances, in place."""
    for r in range(start, stop):
        row = block[r]
        norm = row_norms[r]
        for j in range(row.size):
            scale = norm + column_norms[j]
            distance = scale - np.float32(2) * row[j]
            row[j] = distance if distance > NOISE * scale else np.float32(0)


@njit(cache=True, nogil=True)
def _insert(
    index: Any, distance: Any, row: int, candidate: int, value: float
) -> None:  # pragma: no cover - compiled
    """Insert into the sorted list of `row`, in place of its last entry, unless that comes first."""
    place = index.shape[1] - 1
    if value == distance[row, place] and candidate > index[row, place]:
        return
    while place > 0:
        before = distance[row, place - 1]
        if before < value or (before == value and index[row, place - 1] < candidate):
            break
        distance[row, place] = before
        index[row, place] = index[row, place - 1]
        place -= 1
    distance[row, place] = value
    index[row, place] = candidate


# Few entries matter: counting those of a part vectorises, finding them does not. Counting and
# offering are functions of their own because slices inside a longer function are counted
# references, which cost more than the comparisons.


@njit(cache=True, nogil=True)
def _hits_of_row(
    row: Any, bound: float, largest: float, left: int, right: int
) -> Any:  # pragma: no cover - compiled
    part = row[left:right]
    hits = np.int32(0)
    for j in range(part.size):
        hits = np.int32(hits + np.int32((part[j] <= bound) | (part[j] > largest)))
    return hits


@njit(cache=True, nogil=True)
def _hits_of_columns(
    row: Any, bounds: Any, largest: Any, left: int, right: int
) -> Any:  # pragma: no cover - compiled
    part, bound, most = row[left:right], bounds[left:right], largest[left:right]
    hits = np.int32(0)
    for j in range(part.size):
        hits = np.int32(hits + np.int32((part[j] <= bound[j]) | (part[j] > most[j])))
    return hits


@njit(cache=True, nogil=True)
def _offer_to_row(
    row: Any,
    left: int,
    right: int,
    first_column: int,
    r: int,
    index: Any,
    distance: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    for j in range(left, right):
        farthest[r] = max(farthest[r], row[j])
        if row[j] <= limit[r]:
            _insert(index, distance, r, first_column + j, row[j])
            limit[r] = distance[r, index.shape[1] - 1]


@njit(cache=True, nogil=True)
def _offer_to_columns(
    row: Any,
    left: int,
    right: int,
    candidate: int,
    index: Any,
    distance: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    for j in range(left, right):
        farthest[j] = max(farthest[j], row[j])
        if row[j] <= limit[j]:
            _insert(index, distance, j, candidate, row[j])
            limit[j] = distance[j, index.shape[1] - 1]


@njit(cache=True, nogil=True)
def _scan_rows(
    start: int,
    stop: int,
    block: Any,
    first_column: int,
    index: Any,
    distance: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    """Offer every entry of rows `start..stop` to the list of its row."""
    for r in range(start, stop):
        row = block[r]
        for left in range(0, row.size, CHUNK):
            right = min(left + CHUNK, row.size)
            if _hits_of_row(row, limit[r], farthest[r], left, right):
                lists = (index, distance, limit, farthest)
                _offer_to_row(row, left, right, first_column, r, *lists)


@njit(cache=True, nogil=True)
def _scan_columns(
    start: int,
    stop: int,
    block: Any,
    first_row: int,
    index: Any,
    distance: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    """Offer every entry of rows `start..stop` to the list of its column."""
    for r in range(start, stop):
        row = block[r]
        for left in range(0, row.size, CHUNK):
            right = min(left + CHUNK, row.size)
            if _hits_of_columns(row, limit, farthest, left, right):
                lists = (index, distance, limit, farthest)
                _offer_to_columns(row, left, right, first_row + r, *lists)

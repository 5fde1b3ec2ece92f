"""Nearest neighbours of every row among all rows, without an (N, N) matrix.

Squared Euclidean distances come in blocks of the upper triangle only: one matrix product serves
the rows of one side and, transposed, those of the other. Blocks come in any order, whatever core
is free takes the next one; ties go to the lowest index by comparison, not by order of arrival.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.retrieval.features import Floats
from reid.retrieval.products import Products
from reid.retrieval.scan import SPARE, scan_columns, scan_rows, sort_nearest, to_distances
from reid.retrieval.threads import one_thread_per_product, over_pairs, over_rows

BLOCK = 256
"""Rows of a distance block: 256 KiB, which stays in the cache of a core. Of those on the diagonal
half is computed in vain: larger ones cost more than they gain below some 10,000 rows."""


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
    pools = Pools.empty(size, count)
    parts = [slice(top, min(top + BLOCK, size)) for top in range(0, size, BLOCK)]

    def work(a: int, b: int) -> None:
        rows, columns = parts[a], parts[b]
        block = products(rows, columns)
        of_rows, of_columns = pools.part(rows), pools.part(columns)
        to_distances(0, len(block), block, norms[rows], norms[columns])
        scan_rows(0, len(block), block, columns.start, *of_rows)
        if a < b:
            scan_columns(0, len(block), block, rows.start, *of_columns)
        if cross is not None:
            _copy_cross(block, rows, columns, cross)

    with one_thread_per_product():
        over_pairs(work, len(parts), threads=threads)
    return pools.nearest(threads=threads)


def nearest_of_matrix(distances: NDArray[Any], count: int, *, threads: int) -> Neighbours:
    """As `nearest`, for given squared distances (N, N): column j holds the distances from j."""
    size = len(distances)
    pools = Pools.empty(size, count)
    for top in range(0, size, BLOCK):
        rows = slice(top, min(top + BLOCK, size))
        block = np.ascontiguousarray(distances[:, rows].T, dtype=np.float32)
        block += np.float32(0)  # -0.0 and 0.0 tie
        pools.offer(block, rows, threads=threads)
    return pools.nearest(threads=threads)


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
        for top in range(start, stop, BLOCK):  # a product may be made elsewhere and copied
            end = min(top + BLOCK, stop)
            products(slice(first + top, first + end), columns, out[top:end])
            to_distances(top, end, out, *norms)

    with one_thread_per_product():
        over_rows(part, len(out), threads=threads)


@dataclass(frozen=True)
class Pools:
    """The smallest entries of rows under construction: unsorted candidates for `count` places.

    keys: distance and index as one number; filled: how many there are; limit: what an entry must
    not exceed to become one; farthest: the largest entry that the row has met.
    """

    count: int
    keys: NDArray[np.uint64]
    filled: NDArray[np.int32]
    limit: Floats
    farthest: Floats

    @classmethod
    def empty(cls, size: int, count: int) -> "Pools":
        """`size` pools for the `count` smallest."""
        return cls(
            count,
            np.empty((size, count + SPARE), np.uint64),
            np.zeros(size, np.int32),
            np.full(size, np.inf, np.float32),
            np.full(size, -np.inf, np.float32),
        )

    def part(self, rows: slice) -> tuple[Any, ...]:
        """Views of some of the pools, in the order the kernels take them."""
        return (
            self.count,
            self.keys[rows],
            self.filled[rows],
            self.limit[rows],
            self.farthest[rows],
        )

    def offer(self, block: Floats, rows: slice, *, threads: int) -> None:
        """Offer every entry of `block` to the pool of its row."""
        over_rows(scan_rows, len(block), block, 0, *self.part(rows), threads=threads)

    def nearest(self, *, threads: int) -> Neighbours:
        """The `count` smallest of each row; at least as many were offered."""
        index = np.empty((len(self.keys), self.count), np.int32)
        distance = np.empty(index.shape, np.float32)
        arrays = (self.keys, self.filled, self.limit, index, distance)
        over_rows(sort_nearest, len(index), *arrays, threads=threads)
        return Neighbours(index, distance, self.farthest)


def _copy_cross(block: Floats, rows: slice, columns: slice, cross: Floats) -> None:
    """Copy the query x gallery part of a block of the upper triangle into `cross`."""
    queries = len(cross)
    last_row = min(rows.stop, queries)
    first_column = max(columns.start, queries)
    if rows.start < last_row and first_column < columns.stop:
        cross[rows.start : last_row, first_column - queries : columns.stop - queries] = block[
            : last_row - rows.start, first_column - columns.start :
        ]

"""Nearest neighbors of every row among all rows, without an (N, N) matrix.

Distances come in tiles of the upper triangle only: one matrix product serves the rows of one side
and, transposed, those of the other. Tiles come in any order, whatever core is free takes the next
one; ties go to the lowest index by comparison, not by order of arrival.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.features.features import Floats
from reid.retrieval.distances import TILE, Distances
from reid.retrieval.scan import SPARE, scan_columns, scan_rows, sort_nearest, spread_copies
from reid.retrieval.threads import one_thread_per_product, over_pairs, over_rows


@dataclass(frozen=True)
class Neighbors:
    """The nearest rows of each of N rows, itself among them, ties by lowest index.

    index: (N, k) int32, nearest first. distance: (N, k) squared Euclidean.
    farthest: (N,) squared distance of the farthest row.
    """

    index: NDArray[np.int32]
    distance: Floats
    farthest: Floats


def nearest(
    distances: Distances, count: int, *, cross: Floats | None = None, threads: int
) -> Neighbors:
    """The `count` <= N nearest rows of each of the N rows.

    cross: (Q, G) array with Q + G = N, filled with the distances from the first Q rows to the
    others while they are at hand.
    """
    pools = Pools.empty(distances.distinct, min(count, distances.distinct))
    parts = distances.parts

    def work(a: int, b: int) -> None:
        rows, columns = parts[a], parts[b]
        tile = distances.tile(a, b)
        scan_rows(0, len(tile), tile, columns.start, *pools.part(rows))
        if a < b:
            scan_columns(0, len(tile), tile, rows.start, *pools.part(columns))
        if cross is not None and not distances.copies:
            _copy_cross(tile, rows, columns, cross)

    with one_thread_per_product():
        over_pairs(work, len(parts), threads=threads)
    found = pools.nearest(threads=threads)
    if not distances.copies:
        return found
    if cross is not None:
        rows, columns = slice(0, len(cross)), slice(len(cross), distances.size)
        distances.fill(cross, rows, columns, threads=threads)
    return _with_copies(found, distances.origin, count, threads)


def _with_copies(
    found: Neighbors, origin: NDArray[np.int64], count: int, threads: int
) -> Neighbors:
    """The nearest of all rows, from the nearest distinct ones of the distinct rows."""
    members = np.argsort(origin, kind="stable").astype(np.int32)
    starts = np.searchsorted(origin[members], np.arange(len(found.index) + 1))
    index = np.empty((len(found.index), count), np.int32)
    distance = np.empty(index.shape, np.float32)
    arrays = (found.index, found.distance, starts, members, index, distance)
    over_rows(spread_copies, len(index), *arrays, threads=threads)
    return Neighbors(index[origin], distance[origin], found.farthest[origin])


def nearest_of_matrix(distances: NDArray[Any], count: int, *, threads: int) -> Neighbors:
    """As `nearest`, for given squared distances (N, N): column j holds the distances from j."""
    size = len(distances)
    pools = Pools.empty(size, count)
    for top in range(0, size, TILE):
        rows = slice(top, min(top + TILE, size))
        block = np.ascontiguousarray(distances[:, rows].T, dtype=np.float32)
        block += np.float32(0)  # -0.0 and 0.0 tie
        pools.offer(block, rows, threads=threads)
    return pools.nearest(threads=threads)


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

    def nearest(self, *, threads: int) -> Neighbors:
        """The `count` smallest of each row; at least as many were offered."""
        index = np.empty((len(self.keys), self.count), np.int32)
        distance = np.empty(index.shape, np.float32)
        arrays = (self.keys, self.filled, self.limit, index, distance)
        over_rows(sort_nearest, len(index), *arrays, threads=threads)
        return Neighbors(index, distance, self.farthest)


def _copy_cross(tile: Floats, rows: slice, columns: slice, cross: Floats) -> None:
    """Copy the query x gallery part of a tile of the upper triangle into `cross`."""
    queries = len(cross)
    last_row = min(rows.stop, queries)
    first_column = max(columns.start, queries)
    if rows.start < last_row and first_column < columns.stop:
        cross[rows.start : last_row, first_column - queries : columns.stop - queries] = tile[
            : last_row - rows.start, first_column - columns.start :
        ]

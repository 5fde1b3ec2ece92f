"""k-nearest neighbors of every row among all rows, without an (N, N) matrix.

Distances come in tiles of the upper triangle: one product serves the rows of a tile and, by
symmetry, its columns. A compiled loop reads each tile once, keeps sorted lists of the nearest and
notes the farthest. (Products of whole rows and `np.argpartition` are 1.5 times as slow.)
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import sched_getaffinity
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from reid.compiled import njit
from reid.features.features import Floats
from reid.retrieval.distances import (
    ROWS,
    blocks,
    center,
    first_equal,
    product_of,
    squared_norms,
    tie_copies,
)

COLUMNS = 4096
"""Columns of a tile: with `ROWS` rows it takes 8 MiB."""


@dataclass(frozen=True)
class Neighbors:
    """Squared Euclidean distances of N stacked rows, as far as re-ranking needs them.

    index: (N, k) the nearest rows of each row, itself among them, nearest first, ties by lowest
    index; distance: (N, k) to them; farthest: (N,) to the farthest row.
    cross: (Q, G) from queries to gallery.
    """

    index: NDArray[np.int32]
    distance: Floats
    farthest: Floats
    cross: Floats


def find_neighbors(
    features: Floats, queries: int, count: int, *, device: str | None = None
) -> Neighbors:
    """The `count` nearest rows of each row of `features`, whose first `queries` are the queries.

    Centers `features` in place. device: see `product_of`.
    """
    size = len(features)
    center(features)
    norms = squared_norms(features)
    product = product_of(features, device)
    index = np.full((size, min(count, size)), size, np.int32)
    distance = np.full(index.shape, np.inf, np.float32)
    farthest = np.zeros(size, np.float32)
    cross = np.empty((queries, size - queries), np.float32)
    lock = Lock()

    def work(tile: tuple[slice, slice]) -> None:
        rows, columns = tile
        products = product(rows, columns)
        with lock:  # the scan takes a tenth of the time
            _scan(products, rows.start, columns.start, norms, index, distance, farthest, cross)

    cores = _cores()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        tiles = [
            (rows, columns)
            for rows in blocks(0, size, ROWS)
            for columns in blocks(rows.start, size, COLUMNS)
        ]
        for _ in pool.map(work, tiles):
            pass
    first = first_equal(features)
    tie_copies(cross, first[queries:])
    _tie_copies_in_lists(index, distance, first)
    return Neighbors(index[first], distance[first], farthest[first], cross)


def _cores() -> int:
    """Threads of the matrix library: it follows OMP_NUM_THREADS, which Snakemake sets."""
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return int(min([len(sched_getaffinity(0)), *pools]))


def _tie_copies_in_lists(
    index: NDArray[np.int32], distance: Floats, first: NDArray[np.int64]
) -> None:
    """Among copies of a row, list those of lowest index, at the same distance, in place.

    first: (N,) as `first_equal` gives it. Rounding may have ordered copies differently.
    """
    copies: dict[int, list[int]] = {}
    for row, origin in enumerate(first.tolist()):
        copies.setdefault(origin, []).append(row)
    has_copies = np.array([len(copies[origin]) > 1 for origin in first.tolist()])
    for row in np.flatnonzero(has_copies[index].any(axis=1)).tolist():
        origins = first[index[row]].tolist()
        lowest = {origin: iter(copies[origin]) for origin in origins}
        index[row] = [next(lowest[origin]) for origin in origins]
        nearest = dict(zip(reversed(origins), reversed(distance[row].tolist()), strict=True))
        distance[row] = [nearest[origin] for origin in origins]


@njit(nogil=True)
def _insert(
    index: Any, distance: Any, row: int, value: float
) -> None:  # pragma: no cover - compiled
    """Insert a row into a list sorted by distance, then index, and drop the last of the list."""
    place = index.size
    while place > 0 and (
        distance[place - 1] > value or (distance[place - 1] == value and index[place - 1] > row)
    ):
        if place < index.size:
            distance[place] = distance[place - 1]
            index[place] = index[place - 1]
        place -= 1
    if place < index.size:
        distance[place] = value
        index[place] = row


@njit(nogil=True)
def _scan(
    products: Any,
    first_row: int,
    first_column: int,
    norms: Any,
    index: Any,
    distance: Any,
    farthest: Any,
    cross: Any,
) -> None:  # pragma: no cover - compiled
    """Enter the upper triangle of a tile into the lists of its rows and of its columns."""
    queries, last = len(cross), index.shape[1] - 1
    for r in range(products.shape[0]):
        i = first_row + r
        for c in range(max(0, i - first_column), products.shape[1]):
            j = first_column + c
            value = norms[i] + norms[j] - np.float32(2) * products[r, c]
            if i == j or value < 0:
                value = np.float32(0)
            if i < queries <= j:
                cross[i, j - queries] = value
            farthest[i] = max(farthest[i], value)
            farthest[j] = max(farthest[j], value)
            if value <= distance[i, last]:
                _insert(index[i], distance[i], j, value)
            if value <= distance[j, last] and i != j:
                _insert(index[j], distance[j], i, value)

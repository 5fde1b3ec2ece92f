"""Compiled kernels that scan a block of distances for the nearest of each row and column."""

from typing import Any

import numpy as np
from numba import njit

CHUNK = 64
"""Entries that a scan looks at together."""

NOISE = np.float32(4e-6)
"""Squared distances below this share of the squared norms are rounding errors of the product:
they count as zero, so that duplicates tie exactly."""


@njit(cache=True, nogil=True)
def to_distances(
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
def scan_rows(
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
def scan_columns(
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

"""Compiled kernels that scan a block of distances for the nearest of each row and column."""

from typing import Any

import numpy as np
from numba import njit

CHUNK = 64
"""Entries that a scan looks at together."""

SPARE = 128
"""Candidates, at least a chunk and SLACK, that a pool holds beyond those that are asked for: it is
thinned out when it is full, which is cheaper than keeping it sorted."""

SLACK, BISECTIONS = 24, 20
"""Thinning out leaves at most so many too many, or stops trying to."""

LAST = 0xFFFFFFFF
"""No index is larger."""


@njit(cache=True, nogil=True)
def to_distances(
    block: Any, row_norms: Any, column_norms: Any, diagonal: bool
) -> None:  # pragma: no cover - compiled
    """Turn inner products into squared distances, in place; `diagonal`: row r is column r."""
    for r in range(len(block)):
        row = block[r]
        norm = row_norms[r]
        for j in range(row.size):
            distance = norm + column_norms[j] - np.float32(2) * row[j]
            row[j] = distance if distance > 0 else np.float32(0)
        if diagonal:
            row[r] = 0


# A candidate is one unsigned integer that sorts by distance, then by index: the bits of the
# distance, made to sort as the distance does, over those of the index.


@njit(cache=True, nogil=True)
def _key(distance: Any, index: int) -> Any:  # pragma: no cover - compiled
    bits = np.float32(distance).view(np.uint32)
    bits = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(bits) << np.uint64(32)) | np.uint64(index)


@njit(cache=True, nogil=True)
def _distance(key: Any) -> Any:  # pragma: no cover - compiled
    bits = np.uint32(key >> np.uint64(32))
    bits = bits & np.uint32(0x7FFFFFFF) if bits >> np.uint32(31) else ~bits
    return np.uint32(bits).view(np.float32)


@njit(cache=True, nogil=True)
def _order(keys: Any, row: int, filled: int, place: int) -> None:  # pragma: no cover - compiled
    """Bring the smallest of keys[row, :filled] before `place`, and the next one there."""
    low, high = 0, filled - 1
    while low < high:
        pivot = keys[row, (low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[row, i] < pivot:
                i += 1
            while keys[row, j] > pivot:
                j -= 1
            if i <= j:
                keys[row, i], keys[row, j] = keys[row, j], keys[row, i]
                i += 1
                j -= 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def _within(keys: Any, bound: Any) -> Any:  # pragma: no cover - compiled
    """How many keys do not exceed the bound."""
    found = np.int64(0)  # as wide as a key: that vectorizes
    for p in range(keys.size):
        found += np.int64(keys[p] <= bound)
    return found


@njit(cache=True, nogil=True)
def keep_nearest(
    row: int, count: int, keys: Any, filled: Any, limit: Any
) -> None:  # pragma: no cover - compiled
    """Drop most candidates of a row, none of the `count` nearest, and let in no farther ones.

    A bound that leaves a few more is found by bisection, faster than the exact one by sorting.
    """
    mine = keys[row, : filled[row]]
    bound = mine.max()
    low, high = _distance(mine.min()), _distance(bound)
    for _ in range(BISECTIONS):
        middle = (low + high) / np.float32(2)
        tried = _key(middle, LAST)
        within = _within(mine, tried)
        if within < count:
            low = middle
        else:
            bound, high = tried, middle
            if within <= count + SLACK:
                break
    else:  # many equal ones
        _order(keys, row, filled[row], count - 1)
        bound = mine[count - 1]
    kept = 0
    for p in range(mine.size):
        mine[kept] = mine[p]
        kept += mine[p] <= bound
    filled[row] = kept
    limit[row] = _distance(bound)


@njit(cache=True, nogil=True)
def sort_nearest(
    start: int, stop: int, keys: Any, filled: Any, limit: Any, index: Any, distance: Any
) -> None:  # pragma: no cover - compiled
    """The nearest of each row, nearest first, ties by index."""
    for r in range(start, stop):
        if filled[r] > index.shape[1] + SLACK:
            keep_nearest(r, index.shape[1], keys, filled, limit)
        nearest = keys[r, : filled[r]]
        nearest.sort()
        for place in range(index.shape[1]):
            index[r, place] = np.int32(nearest[place] & np.uint64(LAST))
            distance[r, place] = _distance(nearest[place])


@njit(cache=True, nogil=True)
def spread_copies(
    start: int,
    stop: int,
    index: Any,
    distance: Any,
    starts: Any,
    members: Any,
    all_index: Any,
    all_distance: Any,
) -> None:  # pragma: no cover - compiled
    """The nearest of each row with all copies of them, nearest first, ties by index.

    members[starts[d] : starts[d + 1]]: the copies of row d of `index`, ascending, itself first.
    """
    count = all_index.shape[1]
    keys = np.empty(index.shape[1] * count, np.uint64)
    for r in range(start, stop):
        end = 0
        for p in range(index.shape[1]):
            first = starts[index[r, p]]
            for m in range(first, min(first + count, starts[index[r, p] + 1])):
                keys[end] = _key(distance[r, p], members[m])
                end += 1
        nearest = keys[:end]
        nearest.sort()
        for place in range(count):
            all_index[r, place] = np.int32(nearest[place] & np.uint64(LAST))
            all_distance[r, place] = _distance(nearest[place])


# Few entries matter: counting those of a chunk vectorizes, finding them does not. What vectorizes
# is in functions of its own because slices inside a longer function are counted references, which
# cost more than the comparisons.


@njit(cache=True, nogil=True)
def _look_at_row(
    row: Any, bound: float, largest: float, left: int, right: int
) -> tuple[Any, Any]:  # pragma: no cover - compiled
    """How many entries of a part are near enough, and how many larger than the largest so far."""
    part = row[left:right]
    hits = larger = np.int32(0)
    for j in range(part.size):
        hits = np.int32(hits + np.int32(part[j] <= bound))
        larger = np.int32(larger + np.int32(part[j] > largest))
    return hits, larger


@njit(cache=True, nogil=True)
def _look_at_columns(
    row: Any, bounds: Any, largest: Any, left: int, right: int
) -> Any:  # pragma: no cover - compiled
    """How many entries of a part are near enough; updates the largest entry of each column."""
    part, bound, most = row[left:right], bounds[left:right], largest[left:right]
    hits = np.int32(0)
    for j in range(part.size):
        hits = np.int32(hits + np.int32(part[j] <= bound[j]))
        most[j] = part[j] if part[j] > most[j] else most[j]
    return hits


@njit(cache=True, nogil=True)
def _find_in_row(
    row: Any, bound: float, left: int, right: int, found: Any
) -> None:  # pragma: no cover - compiled
    end = 0
    for j in range(left, right):
        found[end] = j  # taken back unless it is near enough
        end += row[j] <= bound


@njit(cache=True, nogil=True)
def _find_in_columns(
    row: Any, bounds: Any, left: int, right: int, found: Any
) -> None:  # pragma: no cover - compiled
    end = 0
    for j in range(left, right):
        found[end] = j
        end += row[j] <= bounds[j]


@njit(cache=True, nogil=True)
def scan_rows(
    start: int,
    stop: int,
    block: Any,
    first_column: int,
    count: int,
    keys: Any,
    filled: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    """Offer every entry of rows `start..stop` to the pool of its row."""
    found = np.empty(CHUNK, np.uint64)  # unsigned: no test for negative indices
    for r in range(start, stop):
        row = block[r]
        for left in range(0, row.size, CHUNK):
            right = min(left + CHUNK, row.size)
            hits, larger = _look_at_row(row, limit[r], farthest[r], left, right)
            if larger:
                farthest[r] = row[left:right].max()
            if hits:
                _find_in_row(row, limit[r], left, right, found)
                if filled[r] + hits > keys.shape[1]:
                    keep_nearest(r, count, keys, filled, limit)
                end = filled[r]
                for hit in range(hits):
                    keys[r, end + hit] = _key(row[found[hit]], first_column + found[hit])
                filled[r] = end + hits


@njit(cache=True, nogil=True)
def scan_columns(
    start: int,
    stop: int,
    block: Any,
    first_row: int,
    count: int,
    keys: Any,
    filled: Any,
    limit: Any,
    farthest: Any,
) -> None:  # pragma: no cover - compiled
    """Offer every entry of rows `start..stop` to the pool of its column."""
    found = np.empty(CHUNK, np.uint64)  # unsigned: no test for negative indices
    for r in range(start, stop):
        row = block[r]
        for left in range(0, row.size, CHUNK):
            right = min(left + CHUNK, row.size)
            hits = _look_at_columns(row, limit, farthest, left, right)
            if hits:
                _find_in_columns(row, limit, left, right, found)
                for hit in range(hits):
                    column = found[hit]
                    if filled[column] == keys.shape[1]:
                        keep_nearest(column, count, keys, filled, limit)
                    keys[column, filled[column]] = _key(row[column], first_row + r)
                    filled[column] += 1

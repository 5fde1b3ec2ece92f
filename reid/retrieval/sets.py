"""Compiled kernels of the encoding: mutual neighbors, their expansion, weights, inverted index."""

from typing import Any

import numpy as np
from numba import njit

from reid.retrieval.float16 import round_half

DIGIT = 6
"""Bits of a digit of the sort: its counts fit a few cache lines."""


@njit(cache=True, nogil=True)
def mutual(
    start: int, stop: int, near: Any, mutual: Any, sizes: Any
) -> None:  # pragma: no cover - compiled
    """R(i): those neighbors j of i, in rank order, that have i among theirs."""
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
def expand_sets(
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
            row = columns[offsets[i] : offsets[i + 1]]
            row[:] = found[:count]
            _sort(row, found, sizes.size)


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
def sum_rows(
    start: int, stop: int, offsets: Any, values: Any, sums: Any
) -> None:  # pragma: no cover - compiled
    """Sum of the values of each sparse row."""
    for i in range(start, stop):
        sums[i] = _pairwise_sum(values[offsets[i] : offsets[i + 1]])


@njit(cache=True, nogil=True)
def average(
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
    """Local query expansion: mean of the neighbors' rows, added in rank order.

    Lowers new_stops to the end of each row. Only queries need their columns ascending.
    """
    total = np.zeros(near.shape[0], np.float32)
    seen = np.full(near.shape[0], -1, np.int32)
    spare = np.empty(near.shape[0], np.int32)
    divisor = np.float32(near.shape[1])
    for i in range(start, stop):
        found = new_columns[new_starts[i] : new_stops[i]]
        count = 0
        for j in near[i]:
            for p in range(starts[j], stops[j]):
                column = columns[p]
                found[count] = column  # taken back unless it is new
                count += seen[column] != i
                seen[column] = i
                total[column] += values[p]
        found = found[:count]
        if i < queries:
            _sort(found, spare, near.shape[0])
        result = new_values[new_starts[i] : new_starts[i] + count]
        for p in range(count):
            mean = total[found[p]] / divisor
            result[p] = round_half(mean) if half else mean
            total[found[p]] = np.float32(0)
        new_stops[i] = new_starts[i] + count


@njit(cache=True, nogil=True)
def count_columns(
    start: int, stop: int, starts: Any, stops: Any, columns: Any, queries: int, counts: Any
) -> None:  # pragma: no cover - compiled
    """Entries by column of parts `start..stop` of the rows from `queries` on: (parts, columns)."""
    for part in range(start, stop):
        first, last = _part(part, len(counts), queries, starts.size)
        for i in range(first, last):
            for p in range(starts[i], stops[i]):
                counts[part, columns[p]] += 1


@njit(cache=True, nogil=True)
def list_by_column(
    start: int,
    stop: int,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    queries: int,
    places: Any,
    rows: Any,
    weights: Any,
) -> None:  # pragma: no cover - compiled
    """Put each entry of these parts in the next of its column's places for the part."""
    for part in range(start, stop):
        first, last = _part(part, len(places), queries, starts.size)
        for i in range(first, last):
            for p in range(starts[i], stops[i]):
                place = places[part, columns[p]]
                rows[place] = i - queries
                weights[place] = values[p]
                places[part, columns[p]] = place + 1


@njit(cache=True, nogil=True)
def _part(
    part: int, parts: int, first: int, end: int
) -> tuple[int, int]:  # pragma: no cover - compiled
    rows = end - first
    return first + rows * part // parts, first + rows * (part + 1) // parts


@njit(cache=True, nogil=True)
def _sort(keys: Any, spare: Any, limit: int) -> None:  # pragma: no cover - compiled
    """Sort integers from 0 to below `limit` in place, by their digits: no branch to mispredict."""
    counts = np.empty(1 << DIGIT, np.int32)
    source, target = keys, spare[: keys.size]
    shift = 0
    while (limit - 1) >> shift:
        counts[:] = 0
        for p in range(keys.size):
            counts[(source[p] >> shift) & (counts.size - 1)] += 1
        place = 0
        for digit in range(counts.size):
            count = counts[digit]
            counts[digit] = place
            place += count
        for p in range(keys.size):
            digit = (source[p] >> shift) & (counts.size - 1)
            target[counts[digit]] = source[p]
            counts[digit] += 1
        source, target = target, source
        shift += DIGIT
    if (shift // DIGIT) % 2:
        keys[:] = source

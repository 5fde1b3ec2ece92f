"""Compiled kernels of the metrics: ranks by counting, average precision by two rules.

The rank of a positive is one plus the entries before it: nearer ones, and equally near ones of a
lower gallery index. Counting vectorizes, sorting does not.
"""

from typing import Any

import numpy as np
from numba import njit

BOUNDS = np.array([1, 31 / 32, 15 / 16, 7 / 8], np.float32)
FEW = 8
"""Jaccard distances below the largest bound that leaves one in FEW of them are looked at alone."""


@njit(cache=True, nogil=True)
def before(row: Any, position: int) -> Any:  # pragma: no cover - compiled
    """Entries of `row` ranked before the one at `position`."""
    value = row[position]
    head = row[:position]
    tail = row[position + 1 :]
    # 32-bit counters keep the comparison loops at full vector width.
    low = np.int32(0)
    for j in range(head.size):
        low = np.int32(low + np.int32(head[j] <= value))
    high = np.int32(0)
    for j in range(tail.size):
        high = np.int32(high + np.int32(tail[j] < value))
    return np.int64(low) + np.int64(high)


@njit(cache=True, nogil=True)
def insert(
    order: Any, places: Any, size: int, entry: int, place: int
) -> None:  # pragma: no cover - compiled
    """Keep `order` (gallery entries) ascending by `places` (entries before each), one more."""
    slot = size
    while slot > 0 and places[slot - 1] > place:
        places[slot] = places[slot - 1]
        order[slot] = order[slot - 1]
        slot -= 1
    places[slot] = place
    order[slot] = entry


@njit(cache=True, nogil=True)
def grade(
    order: Any,
    places: Any,
    camera: int,
    gallery_cam: Any,
    ignored: Any,
    standard: Any,
    trapezoid: Any,
    first_rank: Any,
    positives: Any,
) -> None:  # pragma: no cover - compiled
    """Score one ranking from its entries of the query's identity and what lies before each.

    ignored: (G,) entries that are junk by either rule, or empty. The last four (2,) receive the
    results without and with the junk rule (same camera); average precision and first rank are
    left alone where there is no positive.
    """
    for rule in range(2):
        junk = 0
        good = 0
        area = 0.0
        slanted = 0.0
        for s in range(order.size):
            entry = order[s]
            if (rule == 1 and gallery_cam[entry] == camera) or (ignored.size and ignored[entry]):
                junk += 1
                continue
            place = places[s] - junk  # entries before this positive, junk removed
            previous = good / place if place else 1.0
            good += 1
            precision = good / (place + 1)
            area += precision
            slanted += (previous + precision) / 2
            if good == 1:
                first_rank[rule] = place + 1
        positives[rule] = good
        if good:
            standard[rule] = area / good
            trapezoid[rule] = slanted / good


@njit(cache=True, nogil=True)
def score_rows(
    start: int,
    stop: int,
    distances: Any,
    by_identity: Any,
    gallery_cam: Any,
    ignored: Any,
    first_of: Any,
    last_of: Any,
    query_cam: Any,
    standard: Any,
    trapezoid: Any,
    first_rank: Any,
    positives: Any,
    damaged: Any,
) -> None:  # pragma: no cover - compiled
    """Score the queries `start..stop`; arrays from `first_of` on have one row per query."""
    order = np.empty(by_identity.size, np.int64)
    places = np.empty(by_identity.size, np.int64)
    for q in range(start, stop):
        row = distances[q]
        bad = np.int32(0)
        for j in range(row.size):
            bad = np.int32(bad + np.int32(row[j] != row[j]))
        if bad:
            damaged[q] = True
            continue
        same = by_identity[first_of[q] : last_of[q]]
        for s in range(same.size):
            insert(order, places, s, same[s], before(row, same[s]))
        grade(
            order[: same.size],
            places[: same.size],
            query_cam[q],
            gallery_cam,
            ignored,
            standard[q],
            trapezoid[q],
            first_rank[q],
            positives[q],
        )


@njit(cache=True, nogil=True)
def grade_blends(
    jaccard: Any,
    distances: Any,
    nearest: Any,
    jaccard_shares: Any,
    distance_shares: Any,
    by_identity: Any,
    first_of: Any,
    last_of: Any,
    query_cam: Any,
    gallery_cam: Any,
    precision: Any,
) -> None:  # pragma: no cover - compiled
    """Average precision (rows, L), junk removed, of rankings by L blends of two (rows, G) arrays.

    Left alone where there is no positive. nearest: (rows,) smallest of the distances. A positive
    before anything a large Jaccard distance allows is ranked among the few smaller ones alone.
    """
    size = jaccard.shape[1]
    row, near_row = np.empty(size, np.float32), np.empty(size, np.float32)
    near = np.empty(size, np.int32)
    near_jaccard, near_distance = np.empty(size, np.float32), np.empty(size, np.float32)
    positives, junk = np.empty(size, np.int32), np.empty(size, np.int32)
    theirs = np.empty(size, np.float32)
    order, places = np.empty(size, np.int64), np.empty(size, np.int64)
    for q in range(len(jaccard)):
        good = bad = 0
        for entry in by_identity[first_of[q] : last_of[q]]:
            if gallery_cam[entry] == query_cam[q]:
                junk[bad] = entry
                bad += 1
            else:
                positives[good] = entry
                good += 1
        if good == 0:
            continue
        bound, few = _few_near(jaccard[q], near)
        for p in range(few):
            near_jaccard[p] = jaccard[q, near[p]]
            near_distance[p] = distances[q, near[p]]
        for k in range(jaccard_shares.size):
            share, rest = jaccard_shares[k], distance_shares[k]
            _blend(near_jaccard, share, near_distance, rest, few, near_row)
            floor = bound * share + nearest[q] * rest  # no other value is smaller
            blended = False
            for p in range(bad):
                theirs[p] = jaccard[q, junk[p]] * share + distances[q, junk[p]] * rest
            for p in range(good):
                entry = positives[p]
                value = jaccard[q, entry] * share + distances[q, entry] * rest
                if value < floor:
                    place = _before_among(near_row, near, few, value, entry)
                else:
                    if not blended:
                        _blend(jaccard[q], share, distances[q], rest, size, row)
                        blended = True
                    place = before(row, entry)
                place -= _before_among(theirs, junk, bad, value, entry)
                insert(order, places, p, entry, place)
            area = 0.0
            for p in range(good):
                area += (p + 1) / (places[p] + 1)
            precision[q, k] = area / good


@njit(cache=True, nogil=True)
def _few_near(jaccard: Any, near: Any) -> tuple[Any, int]:  # pragma: no cover - compiled
    """A bound that few Jaccard distances are below, and how many: their places are in `near`."""
    for bound in BOUNDS:
        below = np.int32(0)
        for j in range(jaccard.size):
            below = np.int32(below + np.int32(jaccard[j] < bound))
        if FEW * below <= jaccard.size:
            break
    end = 0
    for j in range(jaccard.size):
        near[end] = j  # taken back unless it is near
        end += jaccard[j] < bound
    return bound, end


@njit(cache=True, nogil=True)
def _blend(
    first: Any, share: Any, second: Any, rest: Any, size: int, out: Any
) -> None:  # pragma: no cover - compiled
    """Weighted sum of two rows; in a function of its own, so that it vectorizes."""
    for j in range(size):
        out[j] = first[j] * share + second[j] * rest


@njit(cache=True, nogil=True)
def _before_among(
    row: Any, entries: Any, size: int, value: Any, entry: int
) -> Any:  # pragma: no cover - compiled
    """How many of the first `size` values, of these gallery entries, rank before one."""
    found = np.int32(0)
    for p in range(size):
        tied = (row[p] == value) & (entries[p] < entry)
        found = np.int32(found + np.int32((row[p] < value) | tied))
    return found

"""Compiled kernels of the metrics: ranks by counting, average precision by two rules.

The rank of a positive is one plus the entries before it: nearer ones, and equally near ones of a
lower gallery index. Counting vectorises, sorting does not.
"""

from typing import Any

import numpy as np
from numba import njit


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
def rank(row: Any, same: Any, order: Any, places: Any) -> None:  # pragma: no cover - compiled
    """The entries `same` of `row`, given ascending, by rank, and how many lie before each."""
    for s in range(same.size):
        entry, place, slot = same[s], before(row, same[s]), s
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
        rank(row, same, order, places)
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

    Left alone where there is no positive.
    """
    row = np.empty(jaccard.shape[1], np.float32)
    order, places = np.empty(row.size, np.int64), np.empty(row.size, np.int64)
    standard, trapezoid = np.empty(2), np.empty(2)
    first_rank, positives = np.empty(2, np.int64), np.empty(2, np.int64)
    nothing = np.empty(0, np.bool_)
    results = (standard, trapezoid, first_rank, positives)
    for q in range(len(jaccard)):
        same = by_identity[first_of[q] : last_of[q]]
        for k in range(jaccard_shares.size):
            _blend(jaccard[q], jaccard_shares[k], distances[q], distance_shares[k], row)
            rank(row, same, order, places)
            standard[1] = precision[q, k]
            ranked = (order[: same.size], places[: same.size])
            grade(*ranked, query_cam[q], gallery_cam, nothing, *results)
            precision[q, k] = standard[1]


@njit(cache=True, nogil=True)
def _blend(
    first: Any, share: Any, second: Any, rest: Any, out: Any
) -> None:  # pragma: no cover - compiled
    """Weighted sum of two rows; in a function of its own, so that it vectorises."""
    for j in range(out.size):
        out[j] = first[j] * share + second[j] * rest

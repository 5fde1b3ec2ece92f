"""Jaccard distance of encoded rows and its blend with the original distance (MODEL 4.7)."""

from typing import Any

import numpy as np
from numba import njit

from reid.features.features import Floats
from reid.retrieval.encoding import Encoding, Form
from reid.retrieval.float16 import round_half
from reid.retrieval.threads import over_rows


def blend(
    encoding: Encoding,
    distances: Floats,
    *,
    first: int = 0,
    lambda_value: float,
    form: Form,
    threads: int,
) -> None:
    """Replace squared distances of consecutive queries by re-ranked ones, in place.

    distances: (rows, G), row 0 is query `first`.
    Result: (1 - lambda) (1 - m / (2 - m)) + lambda d / farthest, m the sum of the smaller weights.
    """
    half = form == "released"
    jaccard_share = np.float32(np.float16(1 - lambda_value) if half else 1 - lambda_value)
    over_rows(
        _blend_rows,
        len(distances),
        distances,
        first,
        *encoding.queries.arrays(),
        *encoding.gallery.arrays(),
        encoding.farthest,
        jaccard_share,
        np.float32(lambda_value),
        half,
        threads=threads,
    )


@njit(cache=True, nogil=True)
def _overlap(
    query: int,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    gallery_starts: Any,
    gallery_stops: Any,
    gallery_rows: Any,
    gallery_values: Any,
    half: bool,
    total: Any,
) -> None:  # pragma: no cover - compiled
    """Sum of min(query weight, gallery weight) over the columns of one query, in `total` (G,)."""
    total[:] = 0
    for p in range(starts[query], stops[query]):
        weight = values[p]
        start, stop = gallery_starts[columns[p]], gallery_stops[columns[p]]
        rows = gallery_rows[start:stop]
        weights = gallery_values[start:stop]
        for e in range(rows.size):
            added = total[rows[e]] + min(weight, weights[e])
            total[rows[e]] = round_half(added) if half else added


@njit(cache=True, nogil=True)
def jaccard_rows(
    first: int,
    out: Any,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    gallery_starts: Any,
    gallery_stops: Any,
    gallery_rows: Any,
    gallery_values: Any,
) -> None:  # pragma: no cover - compiled
    """Jaccard distances (rows, G) in float32 of consecutive queries from `first` on."""
    queries = (starts, stops, columns, values)
    gallery = (gallery_starts, gallery_stops, gallery_rows, gallery_values)
    for r in range(len(out)):
        _overlap(first + r, *queries, *gallery, False, out[r])
        _to_jaccard(out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def _to_jaccard(row: Any) -> None:  # pragma: no cover - compiled
    for j in range(row.size):
        row[j] = np.float32(1) - row[j] / (np.float32(2) - row[j])


@njit(cache=True, nogil=True, error_model="numpy")
def _mix(
    row: Any, total: Any, farthest: Any, jaccard_share: Any, distance_share: Any, half: bool
) -> None:  # pragma: no cover - compiled
    """Replace one row of distances by the result, from their overlaps."""
    one = np.float32(1)
    two = np.float32(2)
    if half:
        for j in range(row.size):
            ratio = round_half(total[j] / round_half(two - total[j]))
            jaccard = round_half(round_half(one - ratio) * jaccard_share)
            row[j] = jaccard + (row[j] / farthest) * distance_share
    else:
        for j in range(row.size):
            jaccard = one - total[j] / (two - total[j])
            row[j] = jaccard * jaccard_share + (row[j] / farthest) * distance_share


@njit(cache=True, nogil=True)
def _blend_rows(
    start: int,
    stop: int,
    distances: Any,
    first: int,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    gallery_starts: Any,
    gallery_stops: Any,
    gallery_rows: Any,
    gallery_values: Any,
    farthest: Any,
    jaccard_share: Any,
    distance_share: Any,
    half: bool,
) -> None:  # pragma: no cover - compiled
    queries = (starts, stops, columns, values)
    gallery = (gallery_starts, gallery_stops, gallery_rows, gallery_values)
    total = np.empty(distances.shape[1], np.float32)
    for r in range(start, stop):
        _overlap(first + r, *queries, *gallery, half, total)
        _mix(distances[r], total, farthest[first + r], jaccard_share, distance_share, half)

"""Squared distances of single pairs of rows, for the few that no neighbor list holds."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.features.features import Floats
from reid.retrieval.encoding import PairDistances
from reid.retrieval.neighbors import Neighbors
from reid.retrieval.threads import over_rows


def pairs_of_features(
    features: Floats, norms: Floats, near: Neighbors, *, threads: int
) -> PairDistances:
    """Squared distances of sparse pairs: from the lists where present, else by inner product."""

    def pairs(offsets: NDArray[np.int64], columns: NDArray[np.int32], listed: int) -> Floats:
        out = np.empty(len(columns), np.float32)
        # No more of the lists than a run with this k1 alone would have: the last bit is the same.
        known = (min(listed, near.index.shape[1]), near.index, near.distance)
        sparse = (offsets, columns, out)
        over_rows(_pair_rows, len(features), features, norms, *known, *sparse, threads=threads)
        return out

    return pairs


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a: Any, b: Any) -> Any:  # pragma: no cover - compiled
    total = np.float32(0)
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True)
def _pair_rows(
    start: int,
    stop: int,
    features: Any,
    norms: Any,
    listed: int,
    index: Any,
    distance: Any,
    offsets: Any,
    columns: Any,
    out: Any,
) -> None:  # pragma: no cover - compiled
    known = np.full(norms.size, -1, np.int32)
    for i in range(start, stop):
        for place in range(listed):
            known[index[i, place]] = place
        for p in range(offsets[i], offsets[i + 1]):
            j = columns[p]
            if known[j] >= 0:
                out[p] = distance[i, known[j]]
            else:
                value = norms[i] + norms[j] - np.float32(2) * _dot(features[i], features[j])
                out[p] = value if value > 0 else np.float32(0)
        for place in range(listed):
            known[index[i, place]] = -1

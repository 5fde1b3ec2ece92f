"""Mean average precision and CMC (Sec. 4.1), by counting instead of sorting.

The rank of a positive is one plus the number of gallery entries before it: entries nearer to the
query, or equally near with a lower gallery index. So gallery order breaks ties.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.compiled import njit
from reid.errors import UserError

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
ApRule = Literal["standard", "trapezoid"]
"""`standard`: mean precision at the positives (rectangles). `trapezoid`: the public scorer of the
challenge, which averages that precision with the one just before the positive."""


@dataclass(frozen=True)
class Metrics:
    """Retrieval quality under one rule of average precision.

    mAP: mean over queries that have a positive; NaN when none has.
    cmc: (G,) share of those queries whose first positive is at rank <= r + 1.
    ap_per_query: (Q,) NaN for a query without a positive.
    first_rank: (Q,) rank of the first positive from 1, or 0 without a positive.
    queries, queries_without_positive: counts.
    chance: the mAP that a uniformly random ranking is expected to reach.
    """

    mAP: float
    cmc: NDArray[np.float64]
    ap_per_query: NDArray[np.float64]
    first_rank: Ints
    queries: int
    queries_without_positive: int
    chance: float

    @property
    def scored(self) -> int:
        """Number of queries that have a positive."""
        return self.queries - self.queries_without_positive

    def rank(self, k: int) -> float:
        """Share of queries with a positive among the first k (Rank-k); k >= 1."""
        if k < 1:
            raise UserError(f"rank must be at least 1, got {k}")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


@dataclass(frozen=True)
class Ranking:
    """Where the M gallery entries with the identity of their query stand in its ranking.

    query, entry: (M,) positions in queries and gallery. before: (M,) number of entries ranked
    before. junk: (M,) whether the entry is of the query's camera. Sorted by query, then `before`.
    queries, gallery: sizes.
    """

    query: Ints
    entry: Ints
    before: Ints
    junk: Mask
    queries: int
    gallery: int


def evaluate(
    distances: NDArray[Any],
    query_pids: ArrayLike,
    gallery_pids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    ap: ApRule = "standard",
) -> Metrics:
    """Measure a ranking.

    distances: (Q, G) float, smaller is nearer. query_pids (Q,), gallery_pids (G,): integers.
    query_cams, gallery_cams: when both are given, gallery entries with the identity and the
    camera of the query are junk: removed from its ranking.
    Raises UserError on wrong shapes, NaN distances, an empty gallery, one camera list only.
    """
    return summarize(rank(distances, query_pids, gallery_pids, query_cams, gallery_cams), ap=ap)


def rank(
    distances: NDArray[Any],
    query_pids: ArrayLike,
    gallery_pids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
) -> Ranking:
    """Rank the gallery entries of each query's identity; arguments as for `evaluate`."""
    if (query_cams is None) != (gallery_cams is None):
        raise UserError("give query_cams and gallery_cams together, or neither")
    queries = _integers(query_pids, "query_pids")
    gallery = _integers(gallery_pids, "gallery_pids")
    if gallery.size == 0:
        raise UserError("the gallery is empty: nothing can be ranked")
    matrix = np.asarray(distances)
    if matrix.shape != (len(queries), len(gallery)):
        raise UserError(
            f"distances have shape {matrix.shape}, expected (queries, gallery): "
            f"{(len(queries), len(gallery))}"
        )
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float64)
    damaged = np.isnan(matrix.min(axis=1))
    if damaged.any():
        raise UserError(f"distances of query {int(damaged.argmax())} are not numbers")
    by_identity = np.argsort(gallery, kind="stable")
    start = np.searchsorted(gallery[by_identity], queries)
    counts = np.searchsorted(gallery[by_identity], queries, "right") - start
    query = np.repeat(np.arange(len(queries)), counts)
    entry = by_identity[np.arange(len(query)) + np.repeat(start - counts.cumsum() + counts, counts)]
    before = np.empty(len(query), np.int64)
    _count_before(np.ascontiguousarray(matrix), query, entry, before)
    order = np.lexsort((before, query))
    entry, before, junk = entry[order], before[order], np.zeros(len(query), np.bool_)
    if query_cams is not None and gallery_cams is not None:
        asked, ranked = _integers(query_cams, "query_cams"), _integers(gallery_cams, "gallery_cams")
        if (len(asked), len(ranked)) != matrix.shape:
            raise UserError("identities and cameras differ in length")
        junk = asked[query] == ranked[entry]
    return Ranking(query, entry, before, junk, len(queries), len(gallery))


def summarize(ranking: Ranking, junk: Mask | None = None, *, ap: ApRule = "standard") -> Metrics:
    """Measure a ranking without the entries of `junk` (M,), None for those of its own junk rule.

    Raises UserError on an unknown rule.
    """
    if ap not in get_args(ApRule):
        raise UserError(f"ap must be one of {', '.join(get_args(ApRule))}, got {ap!r}")
    if junk is None:
        junk = ranking.junk
    starts = np.searchsorted(ranking.query, np.arange(ranking.queries + 1))
    removed = np.concatenate([[0], junk.cumsum()])
    junk_before = removed[:-1] - removed[starts][ranking.query]
    query, before = ranking.query[~junk], (ranking.before - junk_before)[~junk]
    positives = np.bincount(query, minlength=ranking.queries)
    hits = np.arange(1, len(query) + 1) - (positives.cumsum() - positives)[query]
    precision = hits / (before + 1)
    if ap == "trapezoid":
        previous = np.where(before > 0, (hits - 1) / np.maximum(before, 1), 1)
        precision = (previous + precision) / 2
    scored = positives > 0
    ap_per_query = np.full(ranking.queries, np.nan)
    total = np.bincount(query, precision, ranking.queries)
    ap_per_query[scored] = total[scored] / positives[scored]
    first_rank = np.zeros(ranking.queries, np.int64)
    first_rank[query[hits == 1]] = before[hits == 1] + 1
    candidates = ranking.gallery - np.diff(removed[starts])
    nothing = np.full(ranking.gallery, np.nan)
    at_rank = np.bincount(first_rank[scored] - 1, minlength=ranking.gallery)
    return Metrics(
        mAP=float(ap_per_query[scored].mean()) if scored.any() else float("nan"),
        cmc=at_rank.cumsum() / scored.sum() if scored.any() else nothing,
        ap_per_query=ap_per_query,
        first_rank=first_rank,
        queries=ranking.queries,
        queries_without_positive=int((~scored).sum()),
        chance=chance(positives[scored], candidates[scored], ap=ap),
    )


def chance(positives: ArrayLike, candidates: ArrayLike, *, ap: ApRule = "standard") -> float:
    """Expected mAP of a uniformly random ranking.

    positives, candidates: (V,) per query with a positive, its positives and its gallery entries
    after the removal of junk. With n candidates, P positives and H_n the harmonic number,
    E[AP] = (H_n + (P - 1) / (n - 1) (n - H_n)) / n; the trapezoid rule averages that with the
    expected precision just before a positive, P / n.
    """
    total = np.asarray(candidates, np.int64)
    good = np.asarray(positives, np.float64)
    if total.size == 0:
        return float("nan")
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, total.max() + 1))])[total]
    others = (good - 1) / np.maximum(total - 1, 1)
    expected = (harmonic + others * (total - harmonic)) / total
    if ap == "trapezoid":
        expected = (expected + good / total) / 2
    return float(expected.mean())


def _integers(values: ArrayLike, name: str) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(f"{name} must be a one-dimensional list of integers")
    return array.astype(np.int64)


@njit(nogil=True)
def _before(row: Any, position: int) -> Any:  # pragma: no cover - compiled
    """Number of entries of `row` ranked before the one at `position`."""
    value, head, tail = row[position], row[:position], row[position + 1 :]
    low = high = np.int32(0)  # 32-bit counters let the loops vectorize
    for j in range(head.size):
        low = np.int32(low + np.int32(head[j] <= value))
    for j in range(tail.size):
        high = np.int32(high + np.int32(tail[j] < value))
    return low + high


@njit(nogil=True)
def _count_before(
    distances: Any, query: Any, entry: Any, before: Any
) -> None:  # pragma: no cover - compiled
    """before[m]: number of entries ranked before entry[m] in the row of query[m]."""
    for m in range(query.size):
        before[m] = _before(distances[query[m]], entry[m])

"""Mean average precision and CMC by counting, without sorting (Sec. 4.1).

The rank of a positive is one plus the number of gallery entries before it: entries nearer to the
query, or equally near with a lower gallery index. So ties are always broken by gallery order.
Both rules of average precision and both camera rules come out of one pass over the distances.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.errors import UserError
from reid.retrieval.counting import score_rows
from reid.retrieval.threads import cores, over_rows

ApRule = Literal["standard", "trapezoid"]
"""`standard`: mean precision at the positives (rectangles). `trapezoid`: the public scorer of the
challenge, which averages that precision with the one just before the positive."""


@dataclass(frozen=True)
class Metrics:
    """Retrieval quality under one rule of average precision and one camera rule.

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
    first_rank: NDArray[np.int64]
    queries: int
    queries_without_positive: int
    chance: float

    def rank(self, k: int) -> float:
        """Share of queries with a positive among the first k (Rank-k); k >= 1."""
        if k < 1:
            raise UserError(f"rank must be at least 1, got {k}")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


@dataclass(frozen=True)
class Scores:
    """Per-query results of one pass under every rule; rows of the arrays are queries.

    Last axis of the arrays: 0 ignores cameras, 1 removes junk (same identity and camera).
    """

    standard: NDArray[np.float64]  # (Q, 2) average precision, NaN without a positive
    trapezoid: NDArray[np.float64]  # (Q, 2)
    first_rank: NDArray[np.int64]  # (Q, 2) 0 without a positive
    positives: NDArray[np.int64]  # (Q, 2)
    matches: NDArray[np.int64]  # (Q,) gallery entries of the identity, junk included
    gallery: int
    cameras: bool  # whether column 1 means anything

    def metrics(self, *, ap: ApRule = "standard", cameras: bool | None = None) -> Metrics:
        """Average the queries under one rule. `cameras` None removes junk if cameras are known.

        Raises UserError when `cameras` is true and they are not known, or on an unknown rule.
        """
        if ap not in get_args(ApRule):
            raise UserError(f"ap must be one of {', '.join(get_args(ApRule))}, got {ap!r}")
        if cameras and not self.cameras:
            raise UserError("the junk rule needs query_cams and gallery_cams")
        column = int(self.cameras if cameras is None else cameras)
        precision = (self.standard if ap == "standard" else self.trapezoid)[:, column]
        first = self.first_rank[:, column]
        found = first > 0
        valid = int(found.sum())
        candidates = self.gallery - self.matches + self.positives[:, column]
        hits = np.bincount(first[found] - 1, minlength=self.gallery).cumsum()
        nothing = np.full(self.gallery, np.nan)
        return Metrics(
            mAP=float(precision[found].mean()) if valid else float("nan"),
            cmc=hits / valid if valid else nothing,
            ap_per_query=precision,
            first_rank=first,
            queries=len(first),
            queries_without_positive=len(first) - valid,
            chance=chance(self.positives[found, column], candidates[found], ap=ap),
        )


def evaluate(
    distances: NDArray[Any],
    query_pids: ArrayLike,
    gallery_pids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    ap: ApRule = "standard",
    threads: int | None = None,
) -> Metrics:
    """Score a ranking.

    distances: (Q, G) float, smaller is nearer. query_pids (Q,), gallery_pids (G,): integers.
    query_cams, gallery_cams: when both are given, gallery entries with the identity and the
    camera of the query are junk: removed from its ranking.
    Raises UserError on wrong shapes, NaN distances, an empty gallery, one camera list only.
    """
    return score(
        distances, query_pids, gallery_pids, query_cams, gallery_cams, threads=threads
    ).metrics(ap=ap)


def score(
    distances: NDArray[Any],
    query_pids: ArrayLike,
    gallery_pids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    ignored: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> Scores:
    """Both AP rules and both camera rules in one pass; arguments as for `evaluate`.

    ignored: (G,) gallery entries that are junk for the queries of their identity.
    """
    labels = (query_pids, gallery_pids, query_cams, gallery_cams)
    return score_blocks([distances], *labels, ignored=ignored, threads=threads)


def score_blocks(
    blocks: Iterable[NDArray[Any]],
    query_pids: ArrayLike,
    gallery_pids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    ignored: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> Scores:
    """As `score`, for distances that arrive as consecutive (rows, G) blocks of queries."""
    queries = _integers(query_pids, "query_pids")
    gallery = _integers(gallery_pids, "gallery_pids")
    if gallery.size == 0:
        raise UserError("the gallery is empty: nothing can be ranked")
    if (query_cams is None) != (gallery_cams is None):
        raise UserError("give query_cams and gallery_cams together, or neither")
    cameras = query_cams is not None
    query_cam = _integers(query_cams, "query_cams") if cameras else np.zeros_like(queries)
    gallery_cam = _integers(gallery_cams, "gallery_cams") if cameras else np.ones_like(gallery)
    if query_cam.shape != queries.shape or gallery_cam.shape != gallery.shape:
        raise UserError("identities and cameras differ in length")
    if ignored is not None and (ignored.shape != gallery.shape or ignored.dtype != np.bool_):
        raise UserError(f"ignored must be bool of shape {gallery.shape}")

    by_identity, start, stop = group(queries, gallery)
    standard = np.full((len(queries), 2), np.nan)
    trapezoid = np.full((len(queries), 2), np.nan)
    first = np.zeros((len(queries), 2), np.int64)
    positives = np.zeros((len(queries), 2), np.int64)
    done = 0
    for block in blocks:
        matrix = _distances(block, len(gallery))
        if done + len(matrix) > len(queries):
            raise UserError(f"distances have more rows than the {len(queries)} query identities")
        damaged = np.zeros(len(matrix), np.bool_)
        part = slice(done, done + len(matrix))
        over_rows(
            score_rows,
            len(matrix),
            matrix,
            by_identity,
            gallery_cam,
            np.empty(0, np.bool_) if ignored is None else ignored,
            start[part],
            stop[part],
            query_cam[part],
            standard[part],
            trapezoid[part],
            first[part],
            positives[part],
            damaged,
            threads=cores(threads),
        )
        if damaged.any():
            raise UserError(f"distances of query {done + int(damaged.argmax())} are not numbers")
        done += len(matrix)
    if done != len(queries):
        raise UserError(f"distances have {done} rows for {len(queries)} query identities")
    return Scores(standard, trapezoid, first, positives, stop - start, len(gallery), cameras)


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


def _integers(values: ArrayLike | None, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(f"{name} must be a one-dimensional list of integers")
    return array.astype(np.int64)


def _distances(block: NDArray[Any], gallery: int) -> NDArray[Any]:
    matrix = np.asarray(block)
    if matrix.ndim != 2 or matrix.shape[1] != gallery:
        raise UserError(f"distances have shape {matrix.shape}, expected (queries, {gallery})")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float64)
    return np.ascontiguousarray(matrix)


def group(
    queries: NDArray[np.int64], gallery: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Gallery indices ordered by identity; per query the start and stop of its identity there."""
    order = np.argsort(gallery, kind="stable")
    identities = gallery[order]
    return (
        order,
        np.searchsorted(identities, queries),
        np.searchsorted(identities, queries, "right"),
    )

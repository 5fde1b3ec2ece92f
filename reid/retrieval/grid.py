"""mAP of every (k1, k2, lambda) of a grid, in one pass.

Neighbor lists and distances are computed once, the reciprocal sets once for each k1, the query
expansion once for each k2, and every lambda is a blend of the same row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.features.features import Floats, stack
from reid.retrieval import neighbors
from reid.retrieval.counting import grade_blends
from reid.retrieval.distances import Distances
from reid.retrieval.encoding import Encoding, expand, weigh
from reid.retrieval.jaccard import jaccard_rows
from reid.retrieval.metrics import group
from reid.retrieval.pairs import pairs_of_features
from reid.retrieval.rerank import check
from reid.retrieval.threads import cores, over_rows

Triple = tuple[int, int, float]

ROWS = 16
"""Queries of a block of Jaccard distances, which stays in the cache of a core."""


@dataclass(frozen=True)
class Grid:
    """Values to combine. Triples with k2 > k1 are left out."""

    k1: tuple[int, ...]
    k2: tuple[int, ...]
    lambda_values: tuple[float, ...]

    def triples(self) -> list[Triple]:
        """All triples, in the order of the values given."""
        return [
            (k1, k2, value)
            for k1 in self.k1
            for k2 in self.k2
            if k2 <= k1
            for value in self.lambda_values
        ]


def search(
    query: Floats,
    gallery: Floats,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cams: Sequence[int],
    gallery_cams: Sequence[int],
    *,
    grid: Grid,
    device: str | None = None,
    threads: int | None = None,
) -> dict[Triple, float]:
    """mAP (standard rule, junk removed) of every triple of the grid, as `evaluate` gives it."""
    triples = grid.triples()
    if not triples:
        raise UserError("tune: every k2 exceeds every k1, the grid is empty")
    for triple in triples:
        check(*triple)
    workers = cores(threads)
    features = stack(query, gallery, normalize=True)
    queries = len(query)
    distances = np.empty((queries, len(gallery)), np.float32)
    size = min(max(grid.k1) + 1, len(features))
    tiles = Distances(features, device)
    near = neighbors.nearest(tiles, size, cross=distances, threads=workers)
    pairs = pairs_of_features(features, tiles.norms, near, threads=workers)
    distances /= np.where(near.farthest > 0, near.farthest, np.float32(1))[:queries, None]
    nearest = distances.min(axis=1)
    lambdas = np.array(grid.lambda_values, np.float64)
    shares = (1 - lambdas).astype(np.float32), lambdas.astype(np.float32)
    by_identity, starts, stops = group(
        np.asarray(query_pids, np.int64), np.asarray(gallery_pids, np.int64)
    )
    query_cam, gallery_cam = np.asarray(query_cams, np.int64), np.asarray(gallery_cams, np.int64)

    def grade_queries(
        start: int, stop: int, encoding: Encoding, precision: NDArray[np.float64]
    ) -> None:
        jaccard = np.empty((ROWS, len(gallery)), np.float32)
        for first in range(start, stop, ROWS):
            rows = slice(first, min(first + ROWS, stop))
            block = jaccard[: rows.stop - first]
            jaccard_rows(first, block, *encoding.queries.arrays(), *encoding.gallery.arrays())
            grade_blends(
                block,
                distances[rows],
                nearest[rows],
                *shares,
                by_identity,
                starts[rows],
                stops[rows],
                query_cam[rows],
                gallery_cam,
                precision[rows],
            )

    found: dict[Triple, float] = {}
    for k1 in grid.k1:
        weights = weigh(near, pairs, k1=k1, form="float32", threads=workers)
        for k2 in (k2 for k2 in grid.k2 if k2 <= k1):
            encoding = expand(weights, queries=queries, k2=k2, form="float32", threads=workers)
            precision = np.full((queries, len(lambdas)), np.nan)
            over_rows(grade_queries, queries, encoding, precision, threads=workers)
            means = np.nanmean(precision, axis=0)
            for value, mean in zip(grid.lambda_values, means, strict=True):
                found[k1, k2, value] = float(mean)
    return found

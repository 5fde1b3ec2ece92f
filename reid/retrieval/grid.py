"""mAP of every (k1, k2, lambda) of a grid, in one pass.

Neighbour lists and distances are computed once, the reciprocal sets once for each k1, the query
expansion once for each k2, and every lambda is a blend of the same row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from reid.errors import UserError
from reid.retrieval import neighbours
from reid.retrieval.counting import before, grade, insert
from reid.retrieval.encoding import expand, weigh
from reid.retrieval.features import Floats
from reid.retrieval.jaccard import overlap
from reid.retrieval.metrics import group
from reid.retrieval.pairs import pairs_of_features
from reid.retrieval.products import Products
from reid.retrieval.rerank import check, stack
from reid.retrieval.threads import available_cores, over_rows

Triple = tuple[int, int, float]


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
    workers = threads or available_cores()
    features = stack(query, gallery, normalize=True)
    queries = len(query)
    distances = np.empty((queries, len(gallery)), np.float32)
    size = min(max(grid.k1) + 1, len(features))
    products = Products(features, device)
    near = neighbours.nearest(products, size, cross=distances, threads=workers)
    pairs = pairs_of_features(features, near, threads=workers)
    distances /= np.where(near.farthest > 0, near.farthest, np.float32(1))[:queries, None]
    nearest_of_query = distances.min(axis=1)
    lambdas = np.array(grid.lambda_values, np.float64)
    people = np.asarray(query_pids, np.int64), np.asarray(gallery_pids, np.int64)
    by_identity, start, stop = group(*people)
    cameras = np.asarray(query_cams, np.int64), np.asarray(gallery_cams, np.int64)
    found: dict[Triple, float] = {}
    for k1 in grid.k1:
        weights = weigh(near, pairs, k1=k1, form="float32", threads=workers)
        for k2 in (k2 for k2 in grid.k2 if k2 <= k1):
            encoding = expand(weights, queries=queries, k2=k2, form="float32", threads=workers)
            precision = np.full((queries, len(lambdas)), np.nan)
            over_rows(
                _grid_rows,
                queries,
                distances,
                nearest_of_query,
                *encoding.queries.arrays(),
                *encoding.gallery.arrays(),
                (1 - lambdas).astype(np.float32),
                lambdas.astype(np.float32),
                by_identity,
                start,
                stop,
                *cameras,
                precision,
                threads=workers,
            )
            means = np.nanmean(precision, axis=0)
            for value, mean in zip(grid.lambda_values, means, strict=True):
                found[k1, k2, value] = float(mean)
    return found


@njit(cache=True, nogil=True)
def _grid_rows(
    start: int,
    stop: int,
    distances: Any,
    nearest: Any,
    starts: Any,
    stops: Any,
    columns: Any,
    values: Any,
    gallery_starts: Any,
    gallery_stops: Any,
    gallery_rows: Any,
    gallery_values: Any,
    jaccard_shares: Any,
    distance_shares: Any,
    by_identity: Any,
    first_of: Any,
    last_of: Any,
    query_cam: Any,
    gallery_cam: Any,
    precision: Any,
) -> None:  # pragma: no cover - compiled
    """Average precision of queries `start..stop` for every lambda.

    distances: (Q, G) already divided by the farthest; nearest: (Q,) their smallest.
    Most gallery entries share no weight with the query: their Jaccard distance is 1. A positive
    that comes before the nearest of those is ranked among the others alone.
    """
    size = distances.shape[1]
    total = np.zeros(size, np.float32)
    jaccard = np.empty(size, np.float32)
    row = np.empty(size, np.float32)
    near = np.empty(size, np.int64)  # entries that share weight with the query, ascending
    near_jaccard = np.empty(size, np.float32)
    near_distance = np.empty(size, np.float32)
    near_row = np.empty(size, np.float32)
    where = np.empty(size, np.int64)
    order, places = np.empty(size, np.int64), np.empty(size, np.int64)
    standard, trapezoid = np.empty(2), np.empty(2)
    first_rank, positives = np.empty(2, np.int64), np.empty(2, np.int64)
    nothing = np.empty(0, np.bool_)
    one, two = np.float32(1), np.float32(2)
    for q in range(start, stop):
        part = slice(starts[q], stops[q])
        gallery = (gallery_starts, gallery_stops, gallery_rows, gallery_values)
        overlap(columns[part], values[part], *gallery, False, total)
        distance = distances[q]
        count = 0
        for j in range(size):
            near[count] = j
            where[j] = count
            count += total[j] > 0
        for k in range(count):
            near_jaccard[k] = one - total[near[k]] / (two - total[near[k]])
            near_distance[k] = distance[near[k]]
        same = by_identity[first_of[q] : last_of[q]]
        dense = False  # whether `jaccard` is filled for this query
        for place in range(distance_shares.size):
            share, rest = jaccard_shares[place], distance_shares[place]
            ranked = near_row[:count]
            for k in range(count):
                ranked[k] = near_jaccard[k] * share + near_distance[k] * rest
            floor = share + nearest[q] * rest
            mixed = False  # whether `row` is filled for this lambda
            for s in range(same.size):
                entry = same[s]
                if total[entry] > 0 and ranked[where[entry]] < floor:
                    insert(order, places, s, entry, before(ranked, where[entry]))
                    continue
                if not dense:
                    for j in range(size):
                        jaccard[j] = one - total[j] / (two - total[j])
                    dense = True
                if not mixed:
                    for j in range(size):
                        row[j] = jaccard[j] * share + distance[j] * rest
                    mixed = True
                insert(order, places, s, entry, before(row, entry))
            standard[1] = np.nan
            grade(
                order[: same.size],
                places[: same.size],
                query_cam[q],
                gallery_cam,
                nothing,
                standard,
                trapezoid,
                first_rank,
                positives,
            )
            precision[q, place] = standard[1]
        total[:] = 0

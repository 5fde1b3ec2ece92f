"""Choose (k1, k2, lambda) of re-ranking on identities held out of training, not on the test set.

One pass over the grid: neighbour lists and distances are computed once, the reciprocal sets once
for each k1, the query expansion once for each k2, and every lambda is a blend of the same row.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.artefacts import Results
from reid.config import Config, chosen
from reid.data.index import read_split
from reid.data.layout import Tracklet
from reid.errors import UserError
from reid.files import sha256_of_file, write_json
from reid.holdout import VALIDATION, part
from reid.retrieval import features as feature_files
from reid.retrieval import neighbours
from reid.retrieval.counting import before, grade, insert
from reid.retrieval.encoding import expand, weigh
from reid.retrieval.features import Floats
from reid.retrieval.jaccard import overlap
from reid.retrieval.metrics import group, score
from reid.retrieval.products import Products, device_for
from reid.retrieval.rerank import check, pairs_of_features, stack
from reid.retrieval.retrieve import distances_of, labels
from reid.retrieval.threads import available_cores, over_rows

Triple = tuple[int, int, float]

FLAT = 0.005
"""Half a point of mAP: triples this close to the best count as equally good."""


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


def run(config: Config, variant: str, seed: int) -> None:
    """Search the grid for a variant on its training's held-out identities; write the choice.

    Raises UserError when the training holds nobody out or no validation query has a positive.
    """
    options = chosen(config.variants, variant, "variants")
    training = config.trainings[options.training]
    if training.validation.share == 0:
        raise UserError(
            f"trainings.{options.training}.validation.share is 0: no identities are held out to "
            "tune on; set it and train again"
        )
    results = Results.of(config.dataset.name)
    tracklets = part(read_split(results.index("train")), training.validation, VALIDATION)
    source = results.features(options.training, seed, VALIDATION)
    features = feature_files.read(source, rows=len(tracklets), flip_tta=options.flip_tta)
    grid = Grid(config.tune.k1, config.tune.k2, config.tune.lambda_values)
    surfaces: dict[str, dict[Triple, float]] = {}
    plain: dict[str, float] = {}
    counts: dict[str, dict[str, int]] = {}
    for protocol in config.dataset.protocols:
        query, gallery = sides(tracklets, protocol)
        if not has_positive([tracklets[i] for i in query], [tracklets[i] for i in gallery]):
            continue
        people = labels([tracklets[i] for i in query], [tracklets[i] for i in gallery])
        device = device_for(config.runtime.device, len(query) + len(gallery))
        surfaces[protocol] = search(
            features[query], features[gallery], *people, grid=grid, device=device
        )
        cosine = distances_of(features[query], features[gallery], None)
        plain[protocol] = score(cosine, *people).metrics().mAP
        counts[protocol] = {"queries": len(query), "gallery": len(gallery)}
    if not surfaces:
        raise UserError(
            f"trainings.{options.training}.validation: no held-out query has a positive in any "
            "protocol: hold out more identities"
        )
    write_json(
        results.tuned(variant, seed),
        {
            "variant": variant,
            "training": options.training,
            "seed": seed,
            "flip_tta": options.flip_tta,
            "validation": training.validation.model_dump(mode="json"),
            "identities": len({tracklet.identity for tracklet in tracklets}),
            "features": {"path": source.as_posix(), "sha256": sha256_of_file(source)},
            "protocols": counts,
            "mAP_without_rerank": statistics.fmean(plain.values()),
            **choice(surfaces),
        },
    )


def sides(tracklets: Sequence[Tracklet], protocol: str) -> tuple[NDArray[np.int64], ...]:
    """Positions of queries and gallery: the held-out tracklets in the shape of a protocol.

    A2G: aerial queries, ground gallery. G2A: the reverse. A2A: session 1 against session 2.
    """
    camera = np.array([tracklet.camera for tracklet in tracklets])
    first, second = {
        "A2G": (camera > 0, camera == 0),
        "G2A": (camera == 0, camera > 0),
        "A2A": (camera == 1, camera == 2),
    }[protocol]
    return np.flatnonzero(first), np.flatnonzero(second)


def has_positive(queries: Sequence[Tracklet], gallery: Sequence[Tracklet]) -> bool:
    """Whether any query has its identity in the gallery."""
    return bool({t.identity for t in queries} & {t.identity for t in gallery})


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


def choice(surfaces: Mapping[str, Mapping[Triple, float]]) -> dict[str, Any]:
    """The best triple by mean over protocols (first in grid order on ties), and the surface.

    `flatness` tells how much the choice matters: the range of mAP over the grid, and the share
    of triples within half a point of the best.
    """
    triples = list(next(iter(surfaces.values())))
    means = {
        triple: statistics.fmean(surface[triple] for surface in surfaces.values())
        for triple in triples
    }
    best = max(triples, key=lambda triple: means[triple])
    close = sum(mean >= means[best] - FLAT for mean in means.values())
    names = ("k1", "k2", "lambda_value")
    return {
        "chosen": dict(zip(names, best, strict=True)),
        "mAP": means[best],
        "flatness": {
            "range": max(means.values()) - min(means.values()),
            "share_within_half_a_point": close / len(means),
        },
        "surface": [
            {
                **dict(zip(names, triple, strict=True)),
                "mAP": means[triple],
                **{f"mAP_{protocol}": surface[triple] for protocol, surface in surfaces.items()},
            }
            for triple in triples
        ],
    }


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

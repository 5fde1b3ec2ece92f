"""Ranked lists: what the gallery returns first to chosen queries, before and after re-ranking."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from reid.config import Config, Report, ReRanking
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import read_features, read_heights
from reid.paths import Results
from reid.report.collect import Measurement
from reid.report.pictures import Album, Picture
from reid.retrieval.distances import device_for
from reid.retrieval.metrics import rank, summarize
from reid.retrieval.retrieve import distances_of, labels, split_protocol

QUERY_FRAMES, GALLERY_FRAMES = 8, 2
EXTREMES, RANDOM, POINTS = "", "random queries", "one query from each capture point"
"""Groups of the queries that are shown: the best and the worst, and two more."""


@dataclass(frozen=True)
class Entry:
    """A gallery tracklet at its rank."""

    rank: int
    hit: bool
    distance: float
    tracklet: Tracklet
    picture: Picture


@dataclass(frozen=True)
class Ranking:
    """The first entries of one ranking, junk removed, and its quality."""

    title: str
    entries: list[Entry]
    ap: float
    first_hit: int


@dataclass(frozen=True)
class RankedQuery:
    """A query with its rankings: before re-ranking and, if there is any, after it."""

    reason: str
    """Why it is shown."""
    query: Tracklet
    height: float | None
    """Median pixel height of its crops."""
    positives: int
    picture: Picture
    rankings: list[Ranking]


def ranked_lists(config: Config, measurement: Measurement) -> dict[str, list[RankedQuery]]:
    """The chosen queries of one measured protocol with their ranked lists, by group.

    Re-ranking needs all queries, but only the distances of the chosen ones are kept. Raises
    UserError when features or frames are not there, or the index changed after the measurement.
    """
    options, variant = config.report, config.variants[measurement.variant]
    results = Results.of(config.dataset.name)
    index = results.index(measurement.protocol)
    tracklets = read_split(index)
    source = results.features(variant.training, measurement.seed, measurement.protocol)
    features = read_features(source, rows=len(tracklets), flip_tta=variant.flip_tta)
    heights = read_heights(source, rows=len(tracklets))
    queries, gallery = split_protocol(tracklets)
    if measurement.content["per_query"]["tracklet"] != [query.name for query in queries]:
        raise UserError(f"{index} changed: run `reid retrieve` again")
    clip = config.trainings[variant.training].clip
    strip = cache(Album(tracklets, config.dataset, config.runtime, clip, options.faces).strip)
    groups = choose(measurement, queries, heights, options)
    chosen = sorted({q for group in groups.values() for _, q in group})
    asked = [queries[q] for q in chosen]
    shown: dict[int, list[Ranking]] = {q: [] for q in chosen}
    positives: dict[int, int] = {}
    rerank = measurement.content["rerank"]
    device = device_for(config.runtime.device, len(tracklets))
    for used in (None, ReRanking(**rerank)) if rerank else (None,):
        title = "Cosine distance"
        if used:
            title = f"Re-ranked (k1 {used.k1}, k2 {used.k2}, λ {used.lambda_value:g})"
        sides = features[: len(queries)], features[len(queries) :]
        distances = distances_of(*sides, used, device)[chosen]
        same = rank(distances, *labels(asked, gallery))
        metrics = summarize(same)
        for place, q in enumerate(chosen):
            junk = set(same.entry[same.junk & (same.query == place)].tolist())
            hits = set(same.entry[~same.junk & (same.query == place)].tolist())
            positives[q] = len(hits)
            order = np.argsort(distances[place], kind="stable").tolist()
            first = [g for g in order if g not in junk][: options.top]
            entries = [
                Entry(
                    position,
                    g in hits,
                    float(distances[place, g]),
                    gallery[g],
                    strip(gallery[g], GALLERY_FRAMES),
                )
                for position, g in enumerate(first, start=1)
            ]
            ap, first_hit = float(metrics.ap_per_query[place]), int(metrics.first_rank[place])
            shown[q].append(Ranking(title, entries, ap, first_hit))

    def ranked(reason: str, q: int) -> RankedQuery:
        query, height = queries[q], None if heights is None else float(heights[q])
        picture = strip(query, QUERY_FRAMES)
        return RankedQuery(reason, query, height, positives[q], picture, shown[q])

    return {name: [ranked(*each) for each in group] for name, group in groups.items()}


def choose(
    measurement: Measurement,
    queries: Sequence[Tracklet],
    heights: NDArray[np.float32] | None,
    options: Report,
) -> dict[str, list[tuple[str, int]]]:
    """Queries that are shown by group, as (reason, position); each has a positive.

    The best and the worst by average precision: of equally good queries the one with the fewest
    pixels, of equally bad ones that with the most, since these are left to explain. Others at
    random; and one at random of each capture point, of which ground queries have none.
    """
    precision = measurement.content["per_query"]["ap"]
    known = [q for q, ap in enumerate(precision) if ap is not None]
    size = np.zeros(len(queries)) if heights is None else heights
    order = sorted(known, key=lambda q: (-precision[q], size[q]))
    best, worst = order[0], order[-1]
    draw = random.Random(f"{options.seed} {measurement.protocol}")
    rest = [q for q in known if q not in (best, worst)]
    drawn = sorted(draw.sample(rest, min(options.queries, len(rest))))
    points: dict[int, list[int]] = {}
    for q in known:
        if (point := queries[q].capture_point) is not None:
            points.setdefault(point, []).append(q)
    return {
        EXTREMES: [("Best", best), ("Worst", worst)],
        RANDOM: [("Random", q) for q in drawn],
        POINTS: [
            (f"Capture point {point}", draw.choice(points[point])) for point in sorted(points)
        ],
    }

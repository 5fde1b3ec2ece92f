"""Ranked lists: what the gallery returns first to chosen queries, before and after re-ranking."""

import random
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from reid.artifacts import Results
from reid.config import Config, Report, ReRanking
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features.features import Floats, read_features, read_heights
from reid.report.measured import Measurement
from reid.report.pictures import Album, Picture
from reid.retrieval.distances import device_for
from reid.retrieval.metrics import Metrics, evaluate
from reid.retrieval.retrieve import distances_of, labels, split_protocol

QUERY_FRAMES, GALLERY_FRAMES = 8, 2


@dataclass(frozen=True)
class Entry:
    """A gallery tracklet at its rank."""

    rank: int
    hit: bool
    distance: float
    tracklet: Tracklet
    picture: Picture


@dataclass(frozen=True)
class Ranked:
    """The first entries of one ranking, junk removed, and its quality."""

    title: str
    entries: tuple[Entry, ...]
    ap: float
    first_hit: int


@dataclass(frozen=True)
class Shown:
    """A query with its rankings: before re-ranking and, if there is any, after it."""

    reason: str
    query: Tracklet
    height: float | None
    """Median pixel height of its crops."""
    picture: Picture
    lists: tuple[Ranked, ...]


@dataclass(frozen=True)
class Lists:
    """Ranked lists of one protocol."""

    protocol: str
    chosen: tuple[Shown, ...]
    """The best and the worst query."""
    random: tuple[Shown, ...]
    by_capture_point: tuple[Shown, ...]


def ranked_lists(config: Config, measurement: Measurement) -> Lists:
    """Ranked lists of chosen queries of one measured protocol.

    Re-ranking needs all queries, but only the rankings of the chosen ones are kept. Raises
    UserError when features or frames are not there, or the index changed after the measurement.
    """
    options, variant = config.report, measurement.row.variant
    results = Results.of(config.dataset.name)
    tracklets = read_split(results.index(measurement.protocol))
    source = results.features(variant.training, measurement.seed, measurement.protocol)
    features = read_features(source, rows=len(tracklets), flip_tta=variant.flip_tta)
    heights = read_heights(source, rows=len(tracklets))
    queries, gallery = split_protocol(tracklets)
    if measurement.content["per_query"]["tracklet"] != [query.name for query in queries]:
        raise UserError(f"{results.index(measurement.protocol)} changed: run `reid retrieve` again")
    clip = config.trainings[variant.training].clip
    album = Album(tracklets, config.dataset, config.runtime, clip, options.faces)
    chosen = choose(measurement, queries, heights)
    drawn = draw_others(measurement, {q for _, q in chosen}, options)
    points = by_capture_point(measurement, queries, options)
    rankings = _Rankings(
        queries, gallery, features, measurement.rerank,
        sorted({q for _, q in (*chosen, *drawn, *points)}),
        top=options.top,
        device=device_for(config.runtime.device, len(tracklets)),
    )  # fmt: skip
    pictures: dict[int, Picture] = {}

    def shown(reason: str, q: int) -> Shown:
        lists = []
        for title, first, metrics, place in rankings.of(q):
            entries = []
            for rank, (g, distance) in enumerate(first, start=1):
                if g not in pictures:
                    pictures[g] = album.strip(gallery[g], GALLERY_FRAMES)
                hit = gallery[g].identity == queries[q].identity
                entries.append(Entry(rank, hit, distance, gallery[g], pictures[g]))
            ap = float(metrics.ap_per_query[place])
            lists.append(Ranked(title, tuple(entries), ap, int(metrics.first_rank[place])))
        height = None if heights is None else float(heights[q])
        picture = album.strip(queries[q], QUERY_FRAMES)
        return Shown(reason, queries[q], height, picture, tuple(lists))

    return Lists(
        measurement.protocol,
        tuple(shown(*each) for each in chosen),
        tuple(shown(*each) for each in drawn),
        tuple(shown(*each) for each in points),
    )


def choose(
    measurement: Measurement,
    queries: Sequence[Tracklet],
    heights: NDArray[np.float32] | None,
) -> list[tuple[str, int]]:
    """Best and worst query by average precision: (reason, position).

    Of equally good queries the one with the fewest pixels is the best, of equally bad ones that
    with the most is the worst: what is left to explain.
    """
    precision = measurement.content["per_query"]["ap"]
    known = [q for q, ap in enumerate(precision) if ap is not None]
    size = np.zeros(len(queries)) if heights is None else heights
    best = max(known, key=lambda q: (precision[q], -size[q]))
    worst = min(known, key=lambda q: (precision[q], -size[q]))
    return [("Best", best), ("Worst", worst)]


def draw_others(
    measurement: Measurement, taken: Set[int], options: Report
) -> list[tuple[str, int]]:
    """Random queries beside those taken: (reason, position)."""
    precision = measurement.content["per_query"]["ap"]
    rest = [q for q, ap in enumerate(precision) if ap is not None and q not in taken]
    draw = random.Random(f"{options.seed} {measurement.protocol}")
    return [("Random", q) for q in sorted(draw.sample(rest, min(options.queries, len(rest))))]


def by_capture_point(
    measurement: Measurement, queries: Sequence[Tracklet], options: Report
) -> list[tuple[str, int]]:
    """A random query of each capture point: (reason, position). Ground queries have none."""
    precision = measurement.content["per_query"]["ap"]
    groups: dict[int, list[int]] = {}
    for q, tracklet in enumerate(queries):
        if tracklet.capture_point is not None and precision[q] is not None:
            groups.setdefault(tracklet.capture_point, []).append(q)
    draw = random.Random(f"{options.seed} {measurement.protocol} capture points")
    return [(f"Capture point {point}", draw.choice(groups[point])) for point in sorted(groups)]


class _Rankings:
    """Rankings of some queries by cosine distance, and re-ranked if there is re-ranking."""

    def __init__(
        self,
        queries: Sequence[Tracklet],
        gallery: Sequence[Tracklet],
        features: Floats,
        rerank: ReRanking | None,
        rows: Sequence[int],
        *,
        top: int,
        device: str | None,
    ) -> None:
        self._queries, self._gallery, self._top = queries, gallery, top
        self._place = {q: place for place, q in enumerate(rows)}
        asked = [queries[q] for q in rows]
        query, rest = features[: len(queries)], features[len(queries) :]
        found = {"Cosine distance": distances_of(query, rest, None)[rows]}
        if rerank is not None:
            name = f"Re-ranked (k1 {rerank.k1}, k2 {rerank.k2}, λ {rerank.lambda_value:g})"
            found[name] = distances_of(query, rest, rerank, device)[rows]
        self._found = [
            (title, distances, evaluate(distances, *labels(asked, gallery)))
            for title, distances in found.items()
        ]

    def of(self, q: int) -> Iterator[tuple[str, list[tuple[int, float]], Metrics, int]]:
        """For each ranking its title, its first (gallery position, distance), and its quality."""
        place, query = self._place[q], self._queries[q]
        for title, distances, metrics in self._found:
            order = (
                g
                for g in np.argsort(distances[place], kind="stable").tolist()
                if not _is_junk(query, self._gallery[g])
            )
            first = [(g, float(distances[place, g])) for g in islice(order, self._top)]
            yield title, first, metrics, place


def _is_junk(query: Tracklet, entry: Tracklet) -> bool:
    return entry.identity == query.identity and entry.camera == query.camera

"""Rank the gallery of a protocol for every query, and measure it (Sec. 3.2.5, 3.2.6, 4.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.chain import Chain
from reid.config import Config, ReRanking
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import Floats, read_features, read_heights
from reid.files import read_json, write_json
from reid.retrieval.breakdown import Side, breakdown, quality
from reid.retrieval.distances import cosine, device_for
from reid.retrieval.metrics import Mask, Ranking, evaluate, rank, summarize
from reid.retrieval.rerank import k_reciprocal

RANKS = (1, 5, 10, 20)


def run(config: Config, variant: str, seed: int, protocol: str) -> None:
    """Write the metrics of one variant on one protocol as JSON.

    Raises UserError on features that do not fit the index, and on a protocol where no query has a
    positive.
    """
    options, chain = config.variants[variant], Chain(config)
    job = chain.steps.retrieve(variant, seed, protocol)
    with chain.record(job):
        index, source = job.inputs["index"], job.inputs["features"]
        tracklets = read_split(index)
        features = read_features(source, rows=len(tracklets), flip_tta=options.flip_tta)
        heights = read_heights(source, rows=len(tracklets))
        queries, gallery = split_protocol(tracklets)
        split = len(queries)
        if not gallery or not queries:
            raise UserError(f"{index}: {protocol} has no query or no gallery")
        rerank = options.rerank or tuned(job.inputs.get("tuning"))
        device = device_for(config.runtime.device, len(tracklets))
        measured = measure(
            distances_of(features[:split], features[split:], rerank, device),
            Side(queries, None if heights is None else heights[:split]),
            Side(gallery, None if heights is None else heights[split:]),
        )
        if measured["queries_without_positive"] == measured["queries"]:
            raise UserError(f"{protocol}: no query has a positive in the gallery")
        plain = measured["mAP"]
        if rerank is not None:
            distances = cosine(features[:split], features[split:])
            plain = evaluate(distances, *labels(queries, gallery)).mAP
        report = {
            "variant": variant,
            "training": options.training,
            "seed": seed,
            "protocol": protocol,
            "flip_tta": options.flip_tta,
            "rerank": None if rerank is None else rerank.model_dump(mode="json"),
            "tuned": options.tuned,
            **measured,
            "mAP_without_rerank": plain,
        }
        write_json(job.output, report)


def tuned(path: Path | None) -> ReRanking | None:
    """The re-ranking parameters in a file of `reid tune`; None without one.

    Raises UserError when it names none.
    """
    if path is None:
        return None
    try:
        return ReRanking(**read_json(path)["chosen"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} names no parameters: run `reid tune` again") from None


def measure(distances: Floats, queries: Side, gallery: Side) -> dict[str, Any]:
    """All measures of one ranking from its distances (Q, G), JSON-able.

    Means are NaN, which JSON refuses, when no query has a positive.
    """
    people = labels(queries.tracklets, gallery.tracklets)
    ranking = rank(distances, *people)
    metrics = summarize(ranking)
    return {
        "queries": metrics.queries,
        "queries_without_positive": metrics.queries_without_positive,
        "gallery": len(gallery.tracklets),
        "query_identities": len(np.unique(people[0])),
        "gallery_identities": len(np.unique(people[1])),
        **_means(ranking, ranking.junk),
        "intervals": quality(metrics, queries.values("identity")),
        "without_junk_rule": _means(ranking, np.zeros_like(ranking.junk)),
        "breakdown": breakdown(ranking, queries, gallery),
        "per_query": {
            "tracklet": [tracklet.name for tracklet in queries.tracklets],
            "ap": [None if np.isnan(ap) else float(ap) for ap in metrics.ap_per_query],
            "first_rank": [int(first) or None for first in metrics.first_rank],
        },
    }


def distances_of(
    query: Floats, gallery: Floats, rerank: ReRanking | None, device: str | None = None
) -> Floats:
    """Distances (Q, G) of raw features: cosine, or re-ranked; device: see `product_of`."""
    if rerank is None:
        return cosine(query, gallery, device=device)
    return k_reciprocal(query, gallery, **rerank.model_dump(), device=device)


def split_protocol(tracklets: Sequence[Tracklet]) -> tuple[list[Tracklet], list[Tracklet]]:
    """Queries and gallery of a protocol's index, whose queries come first."""
    queries = [tracklet for tracklet in tracklets if tracklet.subset == "query"]
    gallery = [tracklet for tracklet in tracklets if tracklet.subset == "gallery"]
    if [*queries, *gallery] != list(tracklets):
        raise UserError("the index does not list queries first, then the gallery: run `reid index`")
    return queries, gallery


def labels(queries: Sequence[Tracklet], gallery: Sequence[Tracklet]) -> tuple[list[int], ...]:
    """Identities of queries and gallery, then their cameras, as `evaluate` takes them."""
    return (
        [tracklet.identity for tracklet in queries],
        [tracklet.identity for tracklet in gallery],
        [tracklet.camera for tracklet in queries],
        [tracklet.camera for tracklet in gallery],
    )


def _means(ranking: Ranking, junk: Mask) -> dict[str, Any]:
    """mAP by both rules without the junk entries, CMC, and the mAP of a random ranking."""
    standard = summarize(ranking, junk)
    return {
        "mAP": standard.mAP,
        "mAP_trapezoid": summarize(ranking, junk, ap="trapezoid").mAP,
        "cmc": {str(k): standard.rank(k) for k in RANKS},
        "chance_mAP": standard.chance,
    }

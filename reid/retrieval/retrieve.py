"""Rank the gallery of a protocol for every query, and measure it (Sec. 3.2.5, 3.2.6, 4.1)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.artifacts import Results
from reid.config import Config, ReRanking, chosen
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features import features as feature_files
from reid.features.features import Floats
from reid.files import sha256_of_file, write_json
from reid.retrieval.breakdown import Side, breakdown, quality
from reid.retrieval.choice import reranking
from reid.retrieval.distances import cosine_blocks
from reid.retrieval.metrics import Metrics, Scores, score
from reid.retrieval.products import device_for
from reid.retrieval.rerank import k_reciprocal, k_reciprocal_blocks

RANKS = (1, 5, 10, 20)


def run(config: Config, variant: str, seed: int, protocol: str) -> None:
    """Write the metrics of one variant on one protocol as JSON, with the digest of its features.

    Raises UserError on names the configuration does not know, features that do not fit the
    index, and a protocol where no query has a positive.
    """
    options = chosen(config.variants, variant, "variants")
    require_protocol(config, protocol)
    results = Results.of(config.dataset.name)
    tracklets = read_split(results.index(protocol))
    source = results.features(options.training, seed, protocol)
    features = feature_files.read(source, rows=len(tracklets), flip_tta=options.flip_tta)
    queries, gallery = sides(tracklets)
    split = len(queries)
    if not gallery or not queries:
        raise UserError(f"{results.index(protocol)}: {protocol} has no query or no gallery")

    chosen_rerank = reranking(config, variant, seed)
    device = device_for(config.runtime.device, len(tracklets))
    distances = distances_of(features[:split], features[split:], chosen_rerank, device)
    heights = feature_files.heights(source, rows=len(tracklets))
    asked = Side(queries, None if heights is None else heights[:split])
    ranked = Side(gallery, None if heights is None else heights[split:])
    measured = measure(distances, asked, ranked)
    if measured["queries_without_positive"] == measured["queries"]:
        raise UserError(f"{protocol}: no query has a positive in the gallery, nothing to measure")
    plain = measured["mAP"]
    if chosen_rerank is not None:
        cosine = distances_of(features[:split], features[split:], None)
        plain = score(cosine, *labels(queries, gallery)).metrics().mAP
    report = {
        "variant": variant,
        "training": options.training,
        "seed": seed,
        "protocol": protocol,
        "flip_tta": options.flip_tta,
        "rerank": None if chosen_rerank is None else chosen_rerank.model_dump(mode="json"),
        "tuning": _traced(results.tuned(variant, seed)) if options.tuned else None,
        "features": _traced(source),
        **measured,
        "mAP_without_rerank": plain,
    }
    write_json(results.retrieval(variant, seed, protocol), report)


def measure(distances: Floats, queries: Side, gallery: Side) -> dict[str, Any]:
    """Everything about one ranking (Q, G) that can be told from its distances, JSON-able.

    Means are NaN, which JSON refuses, when no query has a positive.
    """
    scores = score(distances, *labels(queries.tracklets, gallery.tracklets))
    metrics = scores.metrics()
    return {
        "queries": metrics.queries,
        "queries_without_positive": metrics.queries_without_positive,
        "gallery": len(gallery.tracklets),
        "query_identities": len(np.unique(queries.identities)),
        "gallery_identities": len(np.unique(gallery.identities)),
        **summary(scores, cameras=True),
        "intervals": quality(metrics.ap_per_query, metrics.first_rank, queries.identities),
        "without_junk_rule": summary(scores, cameras=False),
        "breakdown": breakdown(distances, queries, gallery),
        "per_query": per_query(queries.tracklets, metrics),
    }


def distances_of(
    query: Floats, gallery: Floats, rerank: ReRanking | None, device: str | None = None
) -> Floats:
    """Distances (Q, G) of raw features: cosine, or re-ranked; device: see `k_reciprocal`."""
    if rerank is not None:
        found: Floats = k_reciprocal(query, gallery, **rerank.model_dump(), device=device)
        return found
    distances = np.empty((len(query), len(gallery)), np.float32)
    first = 0
    for block in cosine_blocks(query, gallery, device=device):
        distances[first : first + len(block)] = block
        first += len(block)
    return distances


def distance_blocks(
    query: Floats, gallery: Floats, rerank: ReRanking | None, device: str | None = None
) -> Iterator[Floats]:
    """As `distances_of`, in consecutive (rows, G) blocks of queries, each lost with the next."""
    if rerank is not None:
        return k_reciprocal_blocks(query, gallery, **rerank.model_dump(), device=device)
    return cosine_blocks(query, gallery, device=device)


def sides(tracklets: Sequence[Tracklet]) -> tuple[list[Tracklet], list[Tracklet]]:
    """Queries and gallery of a protocol's index, whose queries come first."""
    queries = [tracklet for tracklet in tracklets if tracklet.subset == "query"]
    gallery = [tracklet for tracklet in tracklets if tracklet.subset == "gallery"]
    if [*queries, *gallery] != list(tracklets):
        raise UserError("the index does not list queries first, then the gallery: run `reid index`")
    return queries, gallery


def labels(queries: Sequence[Tracklet], gallery: Sequence[Tracklet]) -> tuple[list[int], ...]:
    """Identities of queries and gallery, then their cameras: what `score` takes."""
    return (
        [tracklet.identity for tracklet in queries],
        [tracklet.identity for tracklet in gallery],
        [tracklet.camera for tracklet in queries],
        [tracklet.camera for tracklet in gallery],
    )


def summary(scores: Scores, *, cameras: bool) -> dict[str, Any]:
    """mAP by both rules, CMC, and the mAP of a random ranking, under one camera rule."""
    metrics = scores.metrics(cameras=cameras)
    trapezoid = scores.metrics(ap="trapezoid", cameras=cameras)
    return {
        "mAP": metrics.mAP,
        "mAP_trapezoid": trapezoid.mAP,
        "cmc": {str(k): metrics.rank(k) for k in RANKS},
        "chance_mAP": metrics.chance,
    }


def per_query(queries: Sequence[Tracklet], metrics: Metrics) -> dict[str, list[Any]]:
    """Average precision (None without a positive) and first rank of every query, by name."""
    return {
        "tracklet": [tracklet.name for tracklet in queries],
        "ap": [None if np.isnan(ap) else float(ap) for ap in metrics.ap_per_query],
        "first_rank": [int(first) or None for first in metrics.first_rank],
    }


def _traced(path: Path) -> dict[str, str]:
    return {"path": path.as_posix(), "sha256": sha256_of_file(path)}


def require_protocol(config: Config, protocol: str) -> None:
    """Raise UserError unless `protocol` is one of the dataset's."""
    if protocol not in config.dataset.protocols:
        known = ", ".join(config.dataset.protocols)
        raise UserError(f"dataset.protocols: no {protocol!r} (known: {known})")

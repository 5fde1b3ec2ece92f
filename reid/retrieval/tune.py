"""Choose (k1, k2, lambda) of re-ranking on identities held out of training, not on the test set."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reid.chain import Chain
from reid.config import Config, Tune
from reid.data.holdout import held_out
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import Floats, read_features
from reid.files import write_json
from reid.retrieval.distances import cosine, device_for, stack
from reid.retrieval.metrics import evaluate
from reid.retrieval.neighbors import find_neighbors
from reid.retrieval.rerank import blend, encode, expand, scale_of
from reid.retrieval.retrieve import labels
from reid.steps import Job

FLAT = 0.005
"""Half a point of mAP: triples this close to the best count as equally good."""

Triple = tuple[int, int, float]


def run(config: Config, variant: str, seed: int) -> None:
    """Search the grid for a variant on its training's held-out identities; write the choice.

    Protocols in which no held-out query has a positive are left out, with a message. Raises
    UserError when the training holds nobody out or no protocol is left.
    """
    chain = Chain(config)
    job = chain.steps.tune(variant, seed)
    with chain.record(job):
        _tune(config, variant, seed, job)


def _tune(config: Config, variant: str, seed: int, job: Job) -> None:
    options = config.variants[variant]
    training = config.trainings[options.training]
    tracklets = held_out(read_split(job.inputs["index"]), training.validation, options.training)
    features = read_features(job.inputs["features"], rows=len(tracklets), flip_tta=options.flip_tta)
    surfaces: dict[str, dict[Triple, float]] = {}
    plain: dict[str, float] = {}
    counts: dict[str, dict[str, int]] = {}
    for protocol in config.dataset.protocols:
        query, gallery = pseudo_protocol(tracklets, protocol)
        people = labels([tracklets[i] for i in query], [tracklets[i] for i in gallery])
        if len(query) == 0 or len(gallery) == 0:
            continue
        metrics = evaluate(cosine(features[query], features[gallery]), *people)
        if metrics.scored == 0:
            continue
        plain[protocol] = metrics.mAP
        counts[protocol] = {"queries": len(query), "gallery": len(gallery)}
        device = device_for(config.runtime.device, len(query) + len(gallery))
        surfaces[protocol] = search(
            features[query], features[gallery], *people, grid=config.tune, device=device
        )
    if not surfaces:
        raise UserError(
            f"trainings.{options.training}.validation: no held-out query has a positive in any "
            "protocol: hold out more identities"
        )
    if others := [name for name in config.dataset.protocols if name not in surfaces]:
        print(f"left out, no held-out query has a positive: {', '.join(others)}")
    path, without = job.output, statistics.fmean(plain.values())
    best, identities = choose(surfaces), len({tracklet.identity for tracklet in tracklets})
    write_json(
        path,
        {
            "variant": variant,
            "seed": seed,
            "identities": identities,
            "protocols": counts,
            "mAP_without_rerank": without,
            **best,
        },
    )
    triple = ", ".join(f"{name} {value}" for name, value in best["chosen"].items())
    print(
        f"wrote {path}: {triple}: mAP {100 * best['mAP']:.2f} % over {', '.join(surfaces)} of "
        f"{identities} held-out identities, {100 * without:.2f} % without re-ranking"
    )


def search(
    query: Floats,
    gallery: Floats,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cams: Sequence[int],
    gallery_cams: Sequence[int],
    *,
    grid: Tune,
    device: str | None = None,
) -> dict[Triple, float]:
    """mAP, as `evaluate` gives it, of `k_reciprocal` with every triple of the grid with k2 <= k1.

    Neighbors are searched once, reciprocal sets made once for each k1, query expansion and Jaccard
    distances once for each k2.
    """
    pairs = [(k1, k2) for k1 in grid.k1 for k2 in grid.k2 if k2 <= k1]
    if not pairs:
        raise UserError("tune: every k2 exceeds every k1, the grid is empty")
    features = stack(query, gallery, normalize=True)
    neighbors = find_neighbors(features, len(query), max(grid.k1) + 1, device=device)
    scale = scale_of(neighbors, "float32")
    distances = neighbors.cross / scale[: len(query), None]
    surface: dict[Triple, float] = {}
    for k1 in dict.fromkeys(k1 for k1, _ in pairs):
        weights = encode(neighbors, features, k1=k1, form="float32")
        for k2 in (k2 for k2 in grid.k2 if k2 <= k1):
            jaccard = np.zeros_like(distances)
            expanded = expand(weights, neighbors, k2=k2, form="float32")
            blend(expanded, jaccard, scale, lambda_value=0, form="float32")
            for value in grid.lambda_values:
                mixed = jaccard * np.float32(1 - value) + distances * np.float32(value)
                metrics = evaluate(mixed, query_pids, gallery_pids, query_cams, gallery_cams)
                surface[k1, k2, value] = metrics.mAP
    return surface


def pseudo_protocol(tracklets: Sequence[Tracklet], protocol: str) -> tuple[NDArray[np.int64], ...]:
    """Positions of queries and gallery: the held-out tracklets in the shape of a protocol.

    A2G: aerial queries, ground gallery. G2A: the reverse. A2A: session 1 against session 2, where
    there are sessions. Else, and in G2G and ALL, the tracklets of each identity, ordered by camera
    and path, are query and gallery in turn. A tracklet is never both: a copy of each query in the
    gallery would fill the lists of neighbors and favor a large k1.
    """
    columns = ["identity", "view", "session", "camera", "path"]
    table = pd.DataFrame([[getattr(t, name) for name in columns] for t in tracklets], None, columns)
    views = {"A2G": ("aerial", "ground"), "G2A": ("ground", "aerial")}
    if protocol in views:
        query, gallery = (table["view"] == view for view in views[protocol])
    elif protocol == "A2A" and table["session"].notna().any():
        query, gallery = table["session"] == 1, table["session"] == 2
    else:
        view = {"A2A": "aerial", "G2G": "ground"}.get(protocol)
        seen = table if view is None else table[table["view"] == view]
        turn = seen.sort_values(["camera", "path"]).groupby("identity").cumcount() % 2
        query, gallery = (turn.reindex(table.index) == side for side in (0, 1))
    return np.flatnonzero(query), np.flatnonzero(gallery)


def choose(surfaces: Mapping[str, Mapping[Triple, float]]) -> dict[str, Any]:
    """The best triple by mean over protocols (first in grid order on ties), and the surface.

    `flatness` tells how much the choice matters: the range of mAP over the grid, and the share
    of triples within half a point of the best.
    """
    triple = ["k1", "k2", "lambda_value"]
    table = pd.DataFrame(surfaces).add_prefix("mAP_").rename_axis(triple).reset_index()
    table.insert(3, "mAP", table.iloc[:, 3:].mean(axis=1))
    surface, means = table.to_dict("records"), table["mAP"]
    best = surface[means.argmax()]
    return {
        "chosen": {name: best[name] for name in triple},
        "mAP": best["mAP"],
        "flatness": {
            "range": float(means.max() - means.min()),
            "share_within_half_a_point": float((means >= means.max() - FLAT).mean()),
        },
        "surface": surface,
    }

"""Choose (k1, k2, lambda) of re-ranking on identities held out of training, not on the test set."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.artifacts import Results
from reid.config import Config, chosen
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features import features as feature_files
from reid.files import sha256_of_file, write_json
from reid.fingerprint import tune_settings
from reid.holdout import VALIDATION, part
from reid.retrieval.grid import Grid, Triple, search
from reid.retrieval.metrics import score
from reid.retrieval.products import device_for
from reid.retrieval.retrieve import distances_of, labels

FLAT = 0.005
"""Half a point of mAP: triples this close to the best count as equally good."""


def run(config: Config, variant: str, seed: int) -> None:
    """Search the grid for a variant on its training's held-out identities; write the choice.

    Protocols in which no held-out query has a positive are left out, saying so. Raises UserError
    when the training holds nobody out or no protocol is left.
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
    if others := [name for name in config.dataset.protocols if name not in surfaces]:
        print(f"left out, no held-out query has a positive: {', '.join(others)}")
    path, without = results.tuned(variant, seed), statistics.fmean(plain.values())
    found, identities = choice(surfaces), len({tracklet.identity for tracklet in tracklets})
    write_json(
        path,
        {
            "variant": variant,
            "seed": seed,
            "options": tune_settings(config, variant),
            "identities": identities,
            "features": {"path": source.as_posix(), "sha256": sha256_of_file(source)},
            "protocols": counts,
            "mAP_without_rerank": without,
            **found,
        },
    )
    triple = ", ".join(f"{name} {value}" for name, value in found["chosen"].items())
    print(
        f"wrote {path}: {triple}: mAP {100 * found['mAP']:.2f} % over {', '.join(surfaces)} of "
        f"{identities} held-out identities, {100 * without:.2f} % without re-ranking"
    )


def sides(tracklets: Sequence[Tracklet], protocol: str) -> tuple[NDArray[np.int64], ...]:
    """Positions of queries and gallery: the held-out tracklets in the shape of a protocol.

    A2G: aerial queries, ground gallery. G2A: the reverse. A2A: session 1 against session 2, where
    there are sessions. Else, and in G2G and ALL, the tracklets of each identity in the order of
    camera and path are taken in turn as query and gallery. So nobody is on both sides: a copy of
    each query in the gallery would fill the lists of neighbors and favor a large k1.
    """
    view = np.array([tracklet.view for tracklet in tracklets])
    session = np.array([tracklet.session or 0 for tracklet in tracklets])
    aerial, ground = view == "aerial", view == "ground"
    if protocol == "A2A" and session.any():
        first, second = session == 1, session == 2
    elif protocol in ("A2G", "G2A"):
        first, second = (aerial, ground) if protocol == "A2G" else (ground, aerial)
    else:
        chosen = {"A2A": aerial, "G2G": ground, "ALL": np.full(len(view), True)}[protocol]
        turn = _turns(tracklets, np.flatnonzero(chosen))
        first, second = chosen & (turn == 0), chosen & (turn == 1)
    return np.flatnonzero(first), np.flatnonzero(second)


def has_positive(queries: Sequence[Tracklet], gallery: Sequence[Tracklet]) -> bool:
    """Whether any query has its identity in the gallery, seen by another camera."""
    cameras: dict[int, set[int]] = {}
    for tracklet in gallery:
        cameras.setdefault(tracklet.identity, set()).add(tracklet.camera)
    return any(cameras.get(query.identity, set()) - {query.camera} for query in queries)


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


def _turns(tracklets: Sequence[Tracklet], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Alternately 0 and 1 over the tracklets of an identity at `places`, by camera and path."""
    turn = np.zeros(len(tracklets), np.int64)
    seen: Counter[int] = Counter()
    for place in sorted(places, key=lambda p: (tracklets[p].camera, tracklets[p].path)):
        identity = tracklets[place].identity
        turn[place] = seen[identity] % 2
        seen[identity] += 1
    return turn

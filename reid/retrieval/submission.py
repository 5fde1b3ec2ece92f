"""The challenge's submission file: the whole gallery ranked for every query.

    row_id,case,query_tracklet,ranked_gallery_tracklets

Rows: cases in order, queries by identity and tracklet name; the ranking is tracklet names
separated by spaces, best first. Names are `PID_NUMBER`.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.artifacts import Results
from reid.config import Config, chosen
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features import features as feature_files
from reid.files import replacing
from reid.retrieval.choice import reranking
from reid.retrieval.products import device_for
from reid.retrieval.retrieve import distances_of, sides

CASES = {
    "A2G": "Case 1: Aerial to Ground",
    "G2A": "Case 2: Ground to Aerial",
    "A2A": "Case 3: Aerial to Aerial",
}
COLUMNS = ("row_id", "case", "query_tracklet", "ranked_gallery_tracklets")


def run(config: Config, variant: str, seed: int) -> Path:
    """Write the submission of a variant, row by row; returns its path.

    Says which of the dataset's protocols are no case of the challenge. Raises UserError when none
    is, a protocol's features are missing, or two tracklets of one side share a name.
    """
    options = chosen(config.variants, variant, "variants")
    protocols = [name for name in CASES if name in config.dataset.protocols]
    others = ", ".join(name for name in config.dataset.protocols if name not in CASES)
    if not protocols:
        cases = "; ".join(f"{name} is {case}" for name, case in CASES.items())
        raise UserError(f"dataset.protocols: the challenge has no case for {others} ({cases})")
    if others:
        print(f"left out: the challenge has no case for {others}")
    results = Results.of(config.dataset.name)
    rerank = reranking(config, variant, seed)
    path = results.submission(variant, seed)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        row_id = 0
        for protocol in protocols:
            tracklets = read_split(results.index(protocol))
            source = results.features(options.training, seed, protocol)
            rows = feature_files.read(source, rows=len(tracklets), flip_tta=options.flip_tta)
            queries, gallery = sides(tracklets)
            device = device_for(config.runtime.device, len(tracklets))
            distances = distances_of(rows[: len(queries)], rows[len(queries) :], rerank, device)
            for query, names in rankings(distances, queries, gallery):
                row_id += 1
                writer.writerow((row_id, CASES[protocol], query, " ".join(names)))
    return path


def rankings(
    distances: NDArray[Any], queries: Sequence[Tracklet], gallery: Sequence[Tracklet]
) -> Iterator[tuple[str, list[str]]]:
    """Query name and gallery names, best first, by identity and name of the query.

    Equal distances stay in gallery order, as in the evaluation.
    """
    names_of(queries, "query")
    names = names_of(gallery, "gallery")
    order = sorted(range(len(queries)), key=lambda q: (queries[q].identity, queries[q].name))
    for q in order:
        yield queries[q].name, [names[g] for g in np.argsort(distances[q], kind="stable")]


def names_of(tracklets: Sequence[Tracklet], side: str) -> list[str]:
    """Names of the tracklets. Raises UserError when two share one."""
    names = [tracklet.name for tracklet in tracklets]
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise UserError(f"{times} {side} tracklets are called {name}: a row cannot name them")
    return names

"""The challenge's submission file: the whole gallery ranked for every query, and its scorer.

    row_id,case,query_tracklet,ranked_gallery_tracklets

Rows: cases in order, queries by identity and tracklet name; the ranking is tracklet names
separated by spaces, best first. Names are `PID_NUMBER`.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.artefacts import Results
from reid.config import Config, chosen
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.files import replacing
from reid.fingerprint import tune_settings
from reid.retrieval import features as feature_files
from reid.retrieval.choice import read_choice
from reid.retrieval.metrics import Scores, score
from reid.retrieval.products import device_for
from reid.retrieval.retrieve import distances_of, sides

CASES = {
    "A2G": "Case 1: Aerial to Ground",
    "G2A": "Case 2: Ground to Aerial",
    "A2A": "Case 3: Aerial to Aerial",
}
COLUMNS = ("row_id", "case", "query_tracklet", "ranked_gallery_tracklets")
_NAME = re.compile(r"(\d+)_(\d+)", re.ASCII)


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
        raise UserError(f"dataset.protocols: {others} has no case in the challenge ({cases})")
    if others:
        print(f"left out, no case in the challenge: {others}")
    results = Results.of(config.dataset.name)
    rerank = options.rerank
    if options.tuned:
        rerank = read_choice(results, variant, seed, tune_settings(config, variant))
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
    _unique(queries, "query")
    names = _unique(gallery, "gallery")
    order = sorted(range(len(queries)), key=lambda q: (queries[q].identity, queries[q].name))
    for q in order:
        yield queries[q].name, [names[g] for g in np.argsort(distances[q], kind="stable")]


@dataclass(frozen=True)
class Case:
    """One case of a submission file."""

    name: str
    queries: list[str]
    gallery: list[str]
    positions: NDArray[np.float32]
    """(Q, G) place of each gallery tracklet in each ranking, from 0."""


def read(path: Path) -> list[Case]:
    """Read a submission file, in file order.

    Raises UserError naming the line of a missing column, a name of another form, or a ranking
    that is not the whole gallery of its case, each tracklet once.
    """
    cases: dict[str, tuple[list[str], dict[str, int], list[NDArray[np.float32]]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            csv.field_size_limit(2**31 - 1)
            reader = csv.DictReader(opened)
            missing = [name for name in COLUMNS[1:] if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
            for line, row in enumerate(reader, start=2):
                where = f"{path}, line {line}"
                query, ranking = row["query_tracklet"], row["ranked_gallery_tracklets"]
                if query is None or ranking is None:
                    raise UserError(f"{where}: expected {len(COLUMNS)} columns")
                names = ranking.split()
                if row["case"] not in cases:
                    for name in names:
                        parse_name(name, where)
                    place = {name: g for g, name in enumerate(sorted(names, key=_by_number))}
                    cases[row["case"]] = ([], place, [])
                queries, place, rows = cases[row["case"]]
                parse_name(query, where)
                queries.append(query)
                rows.append(_positions(names, place, where))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid submission`") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text: expected a submission csv") from None
    if not cases:
        raise UserError(f"{path} has no rows: expected one for every query")
    return [
        Case(name, queries, list(place), np.stack(rows))
        for name, (queries, place, rows) in cases.items()
    ]


def score_by_number(case: Case) -> Scores:
    """As the challenge's public scorer: the number of the tracklet stands for its camera."""
    queries = np.array([parse_name(name, case.name) for name in case.queries])
    gallery = np.array([parse_name(name, case.name) for name in case.gallery])
    return score(case.positions, queries[:, 0], gallery[:, 0], queries[:, 1], gallery[:, 1])


def score_by_camera(case: Case, tracklets: Sequence[Tracklet]) -> Scores:
    """As `evaluate` in this package: the cameras of the protocol's index.

    Raises UserError when the file names a tracklet that the index does not have.
    """
    queries, gallery = sides(tracklets)
    sides_of = []
    for names, side in ((case.queries, queries), (case.gallery, gallery)):
        known = {tracklet.name: tracklet for tracklet in side}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(f"{case.name}: the index has no tracklet {unknown[0]}")
        sides_of.append([known[name] for name in names])
    (asked, ranked) = sides_of
    return score(
        case.positions,
        [tracklet.identity for tracklet in asked],
        [tracklet.identity for tracklet in ranked],
        [tracklet.camera for tracklet in asked],
        [tracklet.camera for tracklet in ranked],
    )


def parse_name(name: str, where: str) -> tuple[int, int]:
    """Identity and number of a tracklet name. Raises UserError on another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{where}: tracklet name {name!r} is not PID_NUMBER")
    return int(match[1]), int(match[2])


def _unique(tracklets: Sequence[Tracklet], side: str) -> list[str]:
    """Names of the tracklets. Raises UserError when two share one."""
    names = [tracklet.name for tracklet in tracklets]
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise UserError(f"{times} {side} tracklets are called {name}: a row cannot name them")
    return names


def _positions(names: list[str], place: dict[str, int], where: str) -> NDArray[np.float32]:
    if len(names) != len(place) or place.keys() != set(names):
        raise UserError(
            f"{where}: ranks {len(names)} tracklets ({len(set(names))} different), expected each "
            f"of the {len(place)} of its case once"
        )
    row = np.empty(len(place), np.float32)
    row[[place[name] for name in names]] = np.arange(len(names), dtype=np.float32)
    return row


def _by_number(name: str) -> tuple[int, int]:
    return parse_name(name, name)

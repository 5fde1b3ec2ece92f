"""The challenge's submission file: the whole gallery ranked for every query.

    row_id,case,query_tracklet,ranked_gallery_tracklets

Rows: cases in order, queries by identity and tracklet name; the ranking is tracklet names
separated by spaces, best first. Names are `PID_NUMBER`. `run` writes the file, `read` reads and
checks it, `score` prints its scores under both rules of average precision and of junk.
"""

import csv
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reid.config import Config
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import Floats, read_features
from reid.files import replacing
from reid.paths import Results
from reid.retrieval.choice import reranking
from reid.retrieval.distances import device_for
from reid.retrieval.metrics import Metrics, rank, summarize
from reid.retrieval.retrieve import RANKS, distances_of, split_protocol

CASES = {
    "A2G": "Case 1: Aerial to Ground",
    "G2A": "Case 2: Ground to Aerial",
    "A2A": "Case 3: Aerial to Aerial",
}
COLUMNS = ("row_id", "case", "query_tracklet", "ranked_gallery_tracklets")

_NAME = re.compile(r"(\d+)_(\d+)", re.ASCII)


@dataclass(frozen=True)
class Case:
    """One case of a submission file; positions: (Q, G) of the gallery in each ranking, from 0."""

    name: str
    queries: list[str]
    gallery: list[str]
    positions: Floats


def run(config: Config, variant: str, seed: int) -> Path:
    """Write the submission of a variant, row by row; returns its path.

    Prints which of the dataset's protocols are no case of the challenge. Raises UserError when
    none is, a protocol's features are missing, or two queries, or gallery tracklets, share a name.
    """
    options = config.variants[variant]
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
            rows = read_features(source, rows=len(tracklets), flip_tta=options.flip_tta)
            queries, gallery = split_protocol(tracklets)
            device = device_for(config.runtime.device, len(tracklets))
            distances = distances_of(rows[: len(queries)], rows[len(queries) :], rerank, device)
            for query, names in ranked_names(distances, queries, gallery):
                row_id += 1
                writer.writerow((row_id, CASES[protocol], query, " ".join(names)))
    return path


def ranked_names(
    distances: Floats, queries: Sequence[Tracklet], gallery: Sequence[Tracklet]
) -> Iterator[tuple[str, list[str]]]:
    """Query name and gallery names, best first, by identity and name of the query.

    Equal distances stay in gallery order, as in the evaluation.
    """
    _unique_names(queries, "query")
    names = _unique_names(gallery, "gallery")
    order = sorted(range(len(queries)), key=lambda q: (queries[q].identity, queries[q].name))
    for q in order:
        yield queries[q].name, [names[g] for g in np.argsort(distances[q], kind="stable")]


def score(config: Config, file: Path) -> None:
    """Print the scores of a submission file.

    If a protocol of the dataset has an index, the file must have all its queries and rank its
    whole gallery for each. Without the index of every case of the file, the scores by camera are
    left out, with a message.
    """
    results = Results.of(config.dataset.name)
    paths = {CASES[name]: results.index(name) for name in config.dataset.protocols if name in CASES}
    indices = {case: read_split(path) for case, path in paths.items() if path.exists()}
    cases = read(file, indices)
    rules = {"junk by tracklet number (public scorer)": [score_case(case) for case in cases]}
    unknown = [case.name for case in cases if case.name not in indices]
    if not unknown:
        rules["junk by camera (this package, Eq. 5)"] = [
            score_case(case, indices[case.name]) for case in cases
        ]
    for rule, pairs in rules.items():
        print("\n".join(_table(rule, cases, pairs)))
    if unknown:
        print(
            f"No index of {', '.join(unknown)} here: the rule by camera is left out, and it is not "
            "verified that all queries and gallery tracklets are there (run `reid index`)."
        )


def read(path: Path, indices: Mapping[str, Sequence[Tracklet]]) -> list[Case]:
    """Read a submission file, in file order.

    indices: by name of a case, the tracklets of its protocol. Each of their queries must have a
    row. The gallery of a case without an index is what its first row ranks.
    Raises UserError naming the line of a missing column, an unknown case, a name of another form,
    a query that is unknown or repeated, or a ranking that is not the whole gallery of its case,
    each tracklet once; and the first query that has no row.
    """
    known = {case: split_protocol(tracklets) for case, tracklets in indices.items()}
    expected = {case: set(_unique_names(queries, "query")) for case, (queries, _) in known.items()}
    columns: dict[str, dict[str, int]] = {}
    rows: dict[str, dict[str, Floats]] = {case: {} for case in CASES.values()}
    for where, case, query, names in _rows(path):
        _parse_name(query, where)
        if case not in columns:
            gallery = _unique_names(known[case][1], "gallery") if case in known else names
            ordered = sorted(gallery, key=lambda name: _parse_name(name, where))
            columns[case] = {name: column for column, name in enumerate(ordered)}
        if query in rows[case]:
            raise UserError(f"{where}: query {query} of {case} was there before: expected once")
        if case in known and query not in expected[case]:
            raise UserError(f"{where}: {query} is no query of {case}: the index has no such query")
        rows[case][query] = _positions(names, columns[case], f"{where}, query {query}")
    for case, queries in expected.items():
        if missing := sorted(queries - rows[case].keys()):
            raise UserError(
                f"{path}: {len(missing)} of the {len(queries)} queries of {case} have no row, "
                f"first {missing[0]}: expected one for each query of the index"
            )
    if not columns:
        raise UserError(f"{path} has no rows: expected one for every query")
    return [
        Case(case, list(rows[case]), list(gallery), np.stack(list(rows[case].values())))
        for case, gallery in columns.items()
    ]


def score_case(case: Case, tracklets: Sequence[Tracklet] | None = None) -> tuple[Metrics, Metrics]:
    """Metrics of a case by the standard and by the trapezoid rule.

    tracklets: of its protocol; their cameras decide what is junk. Without them the number of a
    tracklet stands for its camera, as in the challenge's public scorer.
    """
    if tracklets is None:
        query, gallery = (
            np.array([_parse_name(name, case.name) for name in names])
            for names in (case.queries, case.gallery)
        )
    else:
        sides = [{t.name: (t.identity, t.camera) for t in s} for s in split_protocol(tracklets)]
        query = np.array([sides[0][name] for name in case.queries])
        gallery = np.array([sides[1][name] for name in case.gallery])
    ranking = rank(case.positions, query[:, 0], gallery[:, 0], query[:, 1], gallery[:, 1])
    return summarize(ranking), summarize(ranking, ap="trapezoid")


def _table(
    rule: str, cases: Sequence[Case], pairs: Sequence[tuple[Metrics, Metrics]]
) -> Iterator[str]:
    """The printed table under one junk rule; pairs: each case by both rules of AP."""
    yield rule
    ranks = "".join(f"{f'R{k}':>8s}" for k in RANKS)
    yield f"{'':28s}{'queries':>9s}{'scored':>8s}{'mAP':>8s}{'trapez.':>9s}{ranks}"
    for case, (standard, trapezoid) in zip(cases, pairs, strict=True):
        shares = "".join(f"{_percent(standard.rank(k)):>8s}" for k in RANKS)
        yield (
            f"{case.name:28s}{standard.queries:9d}{standard.scored:8d}"
            f"{_percent(standard.mAP):>8s}{_percent(trapezoid.mAP):>9s}{shares}"
        )
    rules = list(zip(*pairs, strict=True))
    macro = [statistics.fmean(metrics.mAP for metrics in rule) for rule in rules]
    micro = [pd.Series(np.concatenate([m.ap_per_query for m in rule])).mean() for rule in rules]
    for label, means in (("macro mean of cases (Eq. 5)", macro), ("micro mean of queries", micro)):
        yield f"{label:45s}{_percent(means[0]):>8s}{_percent(means[1]):>9s}"
    for case, (standard, _) in zip(cases, pairs, strict=True):
        if not standard.scored:
            yield f"{case.name}: no query has a positive by this rule, so no macro mean."
    yield ""


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


def _unique_names(tracklets: Sequence[Tracklet], side: str) -> list[str]:
    """Names of the tracklets. Raises UserError when two share one."""
    names = [tracklet.name for tracklet in tracklets]
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise UserError(f"{times} {side} tracklets are called {name}: a row cannot name them")
    return names


def _parse_name(name: str, where: str) -> tuple[int, int]:
    """Identity and number of a tracklet name. Raises UserError on another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{where}: tracklet name {name!r} is not PID_NUMBER")
    return int(match[1]), int(match[2])


def _rows(path: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """File and line, case, query, and the names of the ranking of each row."""
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            csv.field_size_limit(2**31 - 1)
            reader = csv.DictReader(opened)
            missing = [name for name in COLUMNS[1:] if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                case, query, ranking = (row[name] for name in COLUMNS[1:])
                if None in row or None in row.values():
                    raise UserError(f"{where}: expected {len(reader.fieldnames or ())} columns")
                if case not in CASES.values():
                    cases = "; ".join(CASES.values())
                    raise UserError(f"{where}: unknown case {case!r}: expected one of {cases}")
                yield where, case, query, ranking.split()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid submission`") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text: expected a submission csv") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: expected a submission csv: {error}") from None


def _positions(names: list[str], columns: dict[str, int], where: str) -> Floats:
    """(G,) the place of each gallery tracklet, by its column, in a ranking."""
    if not names:
        raise UserError(f"{where}: ranks no tracklet, expected the whole gallery of its case")
    if len(names) != len(columns) or columns.keys() != set(names):
        unknown = next(
            (f"; {name} is not one of them" for name in names if name not in columns), ""
        )
        raise UserError(
            f"{where}: ranks {len(names)} tracklets ({len(set(names))} different), expected each "
            f"of the {len(columns)} of its case once{unknown}"
        )
    row = np.empty(len(columns), np.float32)
    row[[columns[name] for name in names]] = np.arange(len(names), dtype=np.float32)
    return row

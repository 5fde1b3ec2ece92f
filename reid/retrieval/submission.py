"""The challenge's submission file: the whole gallery ranked for every query.

    row_id,case,query_tracklet,ranked_gallery_tracklets

Rows: cases in order, queries by identity and tracklet name; the ranking is tracklet names
separated by spaces, best first. Names are `PID_NUMBER`. `run` writes the file, `read` reads and
checks it, `score` prints its scores under both rules of average precision and of junk.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from reid.chain import Chain
from reid.config import Config
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import Floats, read_features
from reid.files import demand_regular, replacing
from reid.paths import Results
from reid.retrieval.distances import device_for
from reid.retrieval.metrics import Metrics, rank, summarize
from reid.retrieval.retrieve import RANKS, distances_of, split_protocol, tuned

CASES = {
    "A2G": "Case 1: Aerial to Ground",
    "G2A": "Case 2: Ground to Aerial",
    "A2A": "Case 3: Aerial to Aerial",
}
COLUMNS = ("row_id", "case", "query_tracklet", "ranked_gallery_tracklets")

LONGEST_ROW = 2**26
"""Bytes."""

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
    none is, a protocol's features are missing, two queries, or gallery tracklets, share a name, or
    one has another form than the challenge's.
    """
    options = config.variants[variant]
    protocols = [name for name in CASES if name in config.dataset.protocols]
    others = ", ".join(name for name in config.dataset.protocols if name not in CASES)
    if not protocols:
        cases = "; ".join(f"{name} is {case}" for name, case in CASES.items())
        raise UserError(f"dataset.protocols: the challenge has no case for {others} ({cases})")
    if others:
        print(f"left out: the challenge has no case for {others}")
    chain = Chain(config)
    job = chain.steps.submission(variant, seed)
    with (
        chain.record(job),
        replacing(job.output) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as opened,
    ):
        rerank = options.rerank or tuned(job.inputs.get(f"tuning {protocols[0]}"))
        writer = csv.writer(opened)
        writer.writerow(COLUMNS)
        row_id = 0
        for protocol in protocols:
            tracklets = read_split(job.inputs[f"index {protocol}"])
            source = job.inputs[f"features {protocol}"]
            rows = read_features(source, rows=len(tracklets), flip_tta=options.flip_tta)
            queries, gallery = split_protocol(tracklets)
            device = device_for(config.runtime.device, len(tracklets))
            distances = distances_of(rows[: len(queries)], rows[len(queries) :], rerank, device)
            for query, names in ranked_names(distances, queries, gallery):
                row_id += 1
                writer.writerow((row_id, CASES[protocol], query, " ".join(names)))
    return job.output


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
    results = Results.of(config)
    paths = {CASES[name]: results.index(name) for name in config.dataset.protocols if name in CASES}
    indices = {case: read_split(path) for case, path in paths.items() if path.exists()}
    cases = read(file, indices)
    _print_scores(
        "junk by tracklet number (public scorer)", {case.name: score_case(case) for case in cases}
    )
    if unknown := [case.name for case in cases if case.name not in indices]:
        print(
            f"No index of {', '.join(unknown)} here: the rule by camera is left out, and it is not "
            "verified that all queries and gallery tracklets are there (run `reid index`)."
        )
    else:
        _print_scores(
            "junk by camera (this package, Eq. 5)",
            {case.name: score_case(case, indices[case.name]) for case in cases},
        )


def read(path: Path, indices: Mapping[str, Sequence[Tracklet]]) -> list[Case]:
    """Read a submission file, in file order.

    indices: by name of a case, the tracklets of its protocol. Each of their queries must have a
    row. The gallery of a case without an index is what its first row ranks.
    Raises UserError naming a missing column, an unknown case, the row (as spreadsheets count) of a
    name of another form, of a query that is unknown or repeated, or of a ranking that is not the
    whole gallery of its case, each tracklet once; and the first query that has no row.
    """
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(COLUMNS, pa.string()), include_columns=list(COLUMNS[1:])
    )
    try:
        demand_regular(path)
        blocks = pyarrow.csv.ReadOptions(use_threads=False, block_size=LONGEST_ROW)
        table = pyarrow.csv.read_csv(path, blocks, convert_options=options).to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid submission`") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: expected a csv of {', '.join(COLUMNS)}: {reason}") from None
    if table.empty:
        raise UserError(f"{path} has no rows: expected one for every query")
    cases = dict.fromkeys([*table["case"], *indices])
    for case in cases.keys() - CASES.values():
        raise UserError(
            f"{path}: unknown case {case!r}: expected one of {'; '.join(CASES.values())}"
        )
    return [
        _read_case(path, case, table[table["case"] == case], indices.get(case)) for case in cases
    ]


def _read_case(
    path: Path, case: str, rows: pd.DataFrame, tracklets: Sequence[Tracklet] | None
) -> Case:
    """Check the rows of a case against the tracklets of its protocol, None where unknown."""
    rankings = [names.split() for names in rows["ranked_gallery_tracklets"]]
    queries = list(rows["query_tracklet"])
    if tracklets is None:
        expected, gallery = queries, list(dict.fromkeys(rankings[0]))
    else:
        sides = split_protocol(tracklets)
        expected, gallery = _unique_names(sides[0], "query"), _unique_names(sides[1], "gallery")
    columns, known = pd.Index(gallery), set(expected)
    positions = np.empty((len(queries), len(gallery)), np.float32)
    for q, (query, names) in enumerate(zip(queries, rankings, strict=True)):
        where = f"{path}, row {rows.index[q] + 2}: query {query} of {case}"
        _parse_name(query, where)
        if query not in known:
            raise UserError(f"{where} was there before, or is no query of the index")
        known.remove(query)
        wrong = sorted(set(names) ^ set(gallery))
        if not names or wrong or len(names) != len(gallery):
            hint = f"; {wrong[0]} is missing, or not of the case" if wrong else ""
            raise UserError(
                f"{where} ranks {len(names)} tracklets, expected each of the {len(gallery)} of its "
                f"case once{hint}"
            )
        positions[q] = np.argsort(columns.get_indexer(names))
    if known:
        raise UserError(
            f"{path}: {len(known)} of the {len(expected)} queries of {case} have no row, first "
            f"{min(known)}: expected one for each query of the index"
        )
    for name in gallery:
        _parse_name(name, f"{path}, {case}")
    return Case(case, queries, gallery, positions)


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


def _print_scores(rule: str, scores: Mapping[str, tuple[Metrics, Metrics]]) -> None:
    """Print a table under one junk rule; scores: each case by both rules of AP."""
    rows = {}
    for case, (metrics, trapezoid) in scores.items():
        shares = np.array([metrics.mAP, trapezoid.mAP, *map(metrics.rank, RANKS)])
        rows[case] = [metrics.queries, metrics.scored, *(100 * shares)]
    names = ["queries", "scored", "mAP", "trapez.", *(f"R{k}" for k in RANKS)]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    counts, percent = table[["queries", "scored"]], table.drop(columns=["queries", "scored"])
    weighted = percent.mul(counts["scored"], axis=0).sum(min_count=1) / counts["scored"].sum()
    table.loc["macro mean of cases (Eq. 5)"] = [*counts.sum(), *percent.mean(skipna=False)]
    table.loc["micro mean of queries"] = [*counts.sum(), *weighted]
    print(rule, table.to_string(float_format="%.2f", na_rep="-"), sep="\n")
    for case in counts.index[counts["scored"] == 0]:
        print(f"{case}: no query has a positive by this rule, so no macro mean.")
    print()


def _unique_names(tracklets: Sequence[Tracklet], side: str) -> list[str]:
    """Names of the tracklets. Raises UserError when two share one, or one is not of the form."""
    names = [tracklet.name for tracklet in tracklets]
    for name in names:
        _parse_name(name, f"{side} of the index")
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

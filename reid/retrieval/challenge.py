"""Submission files of the challenge read back, checked, and scored by both rules of junk."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid.data.layout import Tracklet
from reid.errors import UserError
from reid.retrieval.metrics import Scores, score
from reid.retrieval.retrieve import labels, sides
from reid.retrieval.submission import CASES, COLUMNS, names_of

_NAME = re.compile(r"(\d+)_(\d+)", re.ASCII)


@dataclass(frozen=True)
class Case:
    """One case of a submission file."""

    name: str
    queries: list[str]
    gallery: list[str]
    positions: NDArray[np.float32]
    """(Q, G) place of each gallery tracklet in each ranking, from 0."""


def read(path: Path, indices: Mapping[str, Sequence[Tracklet]]) -> list[Case]:
    """Read a submission file, in file order.

    indices: by name of a case, the tracklets of its protocol. Every query of theirs must have a
    row; the gallery of a case that is not among them is what its first row ranks.
    Raises UserError naming the line of a missing column, an unknown case, a name of another form,
    a query that is unknown or was there before, or a ranking that is not the whole gallery of its
    case, each tracklet once; and the first query that has no row.
    """
    known = {name: sides(tracklets) for name, tracklets in indices.items()}
    expected = {name: set(names_of(queries, "query")) for name, (queries, _) in known.items()}
    places: dict[str, dict[str, int]] = {}
    found: dict[str, dict[str, NDArray[np.float32]]] = {name: {} for name in CASES.values()}
    for where, case, query, names in _rows(path):
        parse_name(query, where)
        if case not in places:
            gallery = names_of(known[case][1], "gallery") if case in known else names
            ordered = sorted(gallery, key=lambda name: parse_name(name, where))
            places[case] = {name: place for place, name in enumerate(ordered)}
        if query in found[case]:
            raise UserError(f"{where}: query {query} of {case} was there before: expected once")
        if case in known and query not in expected[case]:
            raise UserError(f"{where}: {query} is no query of {case}: the index has no such query")
        found[case][query] = _positions(names, places[case], f"{where}, query {query}")
    for case, queries in expected.items():
        if left := sorted(queries - found[case].keys()):
            raise UserError(
                f"{path}: {len(left)} of the {len(queries)} queries of {case} have no row, first "
                f"{left[0]}: expected one for each query of the index"
            )
    if not places:
        raise UserError(f"{path} has no rows: expected one for every query")
    return [
        Case(case, list(found[case]), list(place), np.stack(list(found[case].values())))
        for case, place in places.items()
    ]


def score_by_number(case: Case) -> Scores:
    """As the challenge's public scorer: the number of the tracklet stands for its camera."""
    queries = np.array([parse_name(name, case.name) for name in case.queries])
    gallery = np.array([parse_name(name, case.name) for name in case.gallery])
    return score(case.positions, queries[:, 0], gallery[:, 0], queries[:, 1], gallery[:, 1])


def score_by_camera(case: Case, tracklets: Sequence[Tracklet]) -> Scores:
    """As `evaluate` in this package: the cameras of the index that the case was read with."""
    queries, gallery = ({each.name: each for each in side} for side in sides(tracklets))
    asked = [queries[name] for name in case.queries]
    ranked = [gallery[name] for name in case.gallery]
    return score(case.positions, *labels(asked, ranked))


def parse_name(name: str, where: str) -> tuple[int, int]:
    """Identity and number of a tracklet name. Raises UserError on another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{where}: tracklet name {name!r} is not PID_NUMBER")
    return int(match[1]), int(match[2])


def _rows(path: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Where each row stands, its case, its query, and the tracklets that it ranks."""
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


def _positions(names: list[str], place: dict[str, int], where: str) -> NDArray[np.float32]:
    if not names:
        raise UserError(f"{where}: ranks no tracklet, expected the whole gallery of its case")
    if len(names) != len(place) or place.keys() != set(names):
        strange = next((f"; {name} is not one of them" for name in names if name not in place), "")
        raise UserError(
            f"{where}: ranks {len(names)} tracklets ({len(set(names))} different), expected each "
            f"of the {len(place)} of its case once{strange}"
        )
    row = np.empty(len(place), np.float32)
    row[[place[name] for name in names]] = np.arange(len(names), dtype=np.float32)
    return row

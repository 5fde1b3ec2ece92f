"""What retrieval wrote of the rows that the table shows: the first measured seed of each cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid.artifacts import Results
from reid.config import ReRanking
from reid.files import read_json
from reid.report.cells import Cell, Row


@dataclass(frozen=True)
class Measurement:
    """One retrieval, as `reid retrieve` wrote it: metrics, breakdown, results of every query."""

    row: Row
    seed: int
    protocol: str
    content: Mapping[str, Any]

    @property
    def rerank(self) -> ReRanking | None:
        """The re-ranking that was used."""
        used = self.content["rerank"]
        return None if used is None else ReRanking(**used)


def measurements(results: Results, row: Row) -> dict[str, Measurement]:
    """By protocol, the first seed of a row whose cell has a number; gaps are left out.

    Whether a file is stale was decided when the cells were collected.
    """
    found: dict[str, Measurement] = {}
    for (seed, protocol), cell in row.cells.items():
        if isinstance(cell, Cell) and protocol not in found:
            content = read_json(results.retrieval(row.name, seed, protocol))
            found[protocol] = Measurement(row, seed, protocol, content)
    return found


def measured_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of the ablation with any number."""
    return [
        row
        for row in rows
        if not row.variant.reference and any(isinstance(c, Cell) for c in row.cells.values())
    ]


def detailed(rows: Sequence[Row], wanted: str | None) -> Row | None:
    """The row shown in detail: the one that is named, else the last of the ablation with numbers.

    None where it has none.
    """
    found = measured_rows(rows)
    if wanted is None:
        return found[-1] if found else None
    return next(
        (
            r
            for r in rows
            if r.name == wanted and any(isinstance(c, Cell) for c in r.cells.values())
        ),
        None,
    )


def one_a_training(rows: Sequence[Row], most: int) -> list[Row]:
    """The last measured row of each training, at most the first and the last `most` - 1."""
    last = {row.variant.training: row for row in measured_rows(rows)}
    found = list(last.values())
    return found if len(found) <= most else [found[0], *found[len(found) - most + 1 :]]

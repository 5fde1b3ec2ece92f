"""The tables of the page, as text: the ablation beside the paper, and each protocol in full."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reid.report.cells import NOT_RUN, Row, percent


@dataclass(frozen=True)
class Score:
    """A number of the table and what stands small below it."""

    column: str
    """Its column in ablation.csv."""
    text: str
    interval: str = ""

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return self.text == NOT_RUN


@dataclass(frozen=True)
class AblationRow:
    """A row beside the paper's."""

    name: str
    label: str
    scores: tuple[Score, ...]
    paper: str
    gain: str
    paper_gain: str
    reference: bool


def ablation_rows(rows: Sequence[Row]) -> list[AblationRow]:
    """The ablation in order, then the references. Gains are over the first row."""
    ablation = [row for row in rows if not row.variant.reference]
    references = [row for row in rows if row.variant.reference]
    first = ablation[0] if ablation else None
    base = first.macro() if first else None
    paper_base = first.variant.paper if first else None
    found = []
    for row in (*ablation, *references):
        macro, paper = row.macro(), row.variant.paper
        scores = [_score(row, protocol) for protocol in row.protocols]
        scores += [
            Score(f"{name}_mean_ap", percent(value, row))
            for name, value in (("macro", macro), ("micro", row.micro()))
        ]
        found.append(
            AblationRow(
                row.name,
                row.variant.label,
                tuple(scores),
                "" if paper is None else f"{paper:.2f}",
                f"{100 * (macro.mean - base.mean):+.2f}" if macro and base else "",
                f"{paper - paper_base:+.2f}" if paper and paper_base else "",
                row.variant.reference,
            )
        )
    return found


def protocol_rows(rows: Sequence[Row], protocol: str) -> list[tuple[str, list[Score]]]:
    """For each row, references last, its label and its numbers on one protocol."""
    values = ("rank1", "rank5", "rank10", "without_rerank", "trapezoid", "chance")
    return [
        (
            row.variant.label,
            [
                _score(row, protocol),
                *(Score(f"{protocol}_{v}", percent(row.of(protocol, v), row)) for v in values),
            ],
        )
        for row in sorted(rows, key=lambda row: row.variant.reference)
    ]


def _score(row: Row, protocol: str) -> Score:
    low, high = row.of(protocol, "low"), row.of(protocol, "high")
    interval = ""
    if low and high and not math.isnan(low.mean + high.mean):
        interval = f"{100 * low.mean:.1f} to {100 * high.mean:.1f}"
    return Score(f"{protocol}_mean_ap", percent(row.of(protocol), row), interval)

"""Offline scorer of a submission file, under both AP rules and both camera rules."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from reid.artefacts import Results
from reid.config import Config
from reid.data.index import read_split
from reid.retrieval.metrics import Metrics, Scores
from reid.retrieval.retrieve import RANKS
from reid.retrieval.submission import CASES, Case, read, score_by_camera, score_by_number


def run(config: Config, file: Path) -> None:
    """Print the scores of a submission file.

    The rule by cameras needs the index of the protocols and is left out, saying so, where there
    is none.
    """
    print("\n".join(lines(read(file), Results.of(config.dataset.name))))


def lines(cases: Sequence[Case], results: Results) -> Iterator[str]:
    """The printed table, line by line."""
    rules: dict[str, list[Scores]] = {
        "junk by tracklet number (public scorer)": [score_by_number(case) for case in cases]
    }
    indices = [_index(case, results) for case in cases]
    if all(path is not None and path.exists() for path in indices):
        rules["junk by camera (this package, Eq. 5)"] = [
            score_by_camera(case, read_split(path))
            for case, path in zip(cases, indices, strict=True)
            if path is not None
        ]
    ranks = "".join(f"{f'R{k}':>8s}" for k in RANKS)
    for rule, scores in rules.items():
        yield f"{rule}"
        yield f"{'':28s}{'queries':>9s}{'scored':>8s}{'mAP':>8s}{'trapez.':>9s}{ranks}"
        pairs = [(each.metrics(), each.metrics(ap="trapezoid")) for each in scores]
        for case, (standard, trapezoid) in zip(cases, pairs, strict=True):
            scored = standard.queries - standard.queries_without_positive
            found = "".join(f"{100 * standard.rank(k):8.2f}" for k in RANKS)
            yield (
                f"{case.name:28s}{standard.queries:9d}{scored:8d}{100 * standard.mAP:8.2f}"
                f"{100 * trapezoid.mAP:9.2f}{found}"
            )
        for name, average in (
            ("macro mean of cases (Eq. 5)", _macro),
            ("micro mean of queries", _micro),
        ):
            values = [average([pair[rule] for pair in pairs]) for rule in (0, 1)]
            yield f"{name:28s}{'':17s}{100 * values[0]:8.2f}{100 * values[1]:9.2f}"
        yield ""
    if len(rules) == 1:
        yield "No index of these cases here: the rule by camera is left out (run `reid index`)."


def _index(case: Case, results: Results) -> Path | None:
    protocols = {name: protocol for protocol, name in CASES.items()}
    protocol = protocols.get(case.name)
    return None if protocol is None else results.index(protocol)


def _macro(metrics: Sequence[Metrics]) -> float:
    return statistics.fmean(each.mAP for each in metrics)


def _micro(metrics: Sequence[Metrics]) -> float:
    scored = [each.queries - each.queries_without_positive for each in metrics]
    total = sum(each.mAP * n for each, n in zip(metrics, scored, strict=True) if n)
    return total / sum(scored) if sum(scored) else float("nan")

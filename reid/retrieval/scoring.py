"""Offline scorer of a submission file, under both AP rules and both camera rules."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reid.artifacts import Results
from reid.config import Config
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.retrieval.challenge import Case, read, score_by_camera, score_by_number
from reid.retrieval.metrics import Metrics, Scores
from reid.retrieval.retrieve import RANKS
from reid.retrieval.submission import CASES


def run(config: Config, file: Path) -> None:
    """Print the scores of a submission file.

    Where a protocol of the dataset has an index, the file must have all its queries and rank its
    whole gallery for each. The rule by cameras needs the index of every case of the file and is
    left out, saying so, without.
    """
    results = Results.of(config.dataset.name)
    paths = {CASES[name]: results.index(name) for name in config.dataset.protocols if name in CASES}
    indices = {case: read_split(path) for case, path in paths.items() if path.exists()}
    print("\n".join(lines(read(file, indices), indices)))


def lines(cases: Sequence[Case], indices: Mapping[str, Sequence[Tracklet]]) -> Iterator[str]:
    """The printed table, line by line; indices: by name of a case, as for `read`."""
    rules: dict[str, list[Scores]] = {
        "junk by tracklet number (public scorer)": [score_by_number(case) for case in cases]
    }
    unknown = [case.name for case in cases if case.name not in indices]
    if not unknown:
        rules["junk by camera (this package, Eq. 5)"] = [
            score_by_camera(case, indices[case.name]) for case in cases
        ]
    ranks = "".join(f"{f'R{k}':>8s}" for k in RANKS)
    for rule, scores in rules.items():
        yield f"{rule}"
        yield f"{'':28s}{'queries':>9s}{'scored':>8s}{'mAP':>8s}{'trapez.':>9s}{ranks}"
        pairs = [(each.metrics(), each.metrics(ap="trapezoid")) for each in scores]
        for case, (standard, trapezoid) in zip(cases, pairs, strict=True):
            found = "".join(f"{_percent(standard.rank(k)):>8s}" for k in RANKS)
            yield (
                f"{case.name:28s}{standard.queries:9d}{_scored(standard):8d}"
                f"{_percent(standard.mAP):>8s}{_percent(trapezoid.mAP):>9s}{found}"
            )
        for name, average in (
            ("macro mean of cases (Eq. 5)", _macro),
            ("micro mean of queries", _micro),
        ):
            values = [_percent(average([pair[rule] for pair in pairs])) for rule in (0, 1)]
            yield f"{name:28s}{'':17s}{values[0]:>8s}{values[1]:>9s}"
        for case, (standard, _) in zip(cases, pairs, strict=True):
            if not _scored(standard):
                yield f"{case.name}: no query has a positive by this rule, so no macro mean."
        yield ""
    if unknown:
        yield (
            f"No index of {', '.join(unknown)} here: the rule by camera is left out, and it is not "
            "verified that all queries and gallery tracklets are there (run `reid index`)."
        )


def _scored(metrics: Metrics) -> int:
    return metrics.queries - metrics.queries_without_positive


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


def _macro(metrics: Sequence[Metrics]) -> float:
    return statistics.fmean(each.mAP for each in metrics)


def _micro(metrics: Sequence[Metrics]) -> float:
    scored = [_scored(each) for each in metrics]
    total = sum(each.mAP * n for each, n in zip(metrics, scored, strict=True) if n)
    return total / sum(scored) if sum(scored) else float("nan")

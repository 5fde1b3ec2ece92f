"""Measurements behind the table: which are there, which are missing or stale, their averages.

A cell is one variant on one protocol with one seed. A cell whose file is missing, damaged, or
older than its options or features is a gap with a reason, never a number.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reid.artifacts import Results
from reid.config import Config, Variant
from reid.errors import UserError
from reid.files import read_json, sha256_of_file
from reid.fingerprint import run_settings
from reid.retrieval.choice import outdated as outdated_tuning

NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """Metrics of one variant, seed and protocol, as shares (not per cent)."""

    mean_ap: float
    trapezoid: float
    rank1: float
    rank5: float
    rank10: float
    chance: float
    without_rerank: float
    low: float
    """Lower end of the 95 % bootstrap interval of mAP over query identities."""
    high: float
    valid_queries: int
    breakdown: tuple[Mapping[str, Any], ...]
    """Quality by capture conditions, as `reid.retrieval.breakdown` gives it."""


@dataclass(frozen=True)
class Gap:
    """Why a cell has no number."""

    reason: str


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and, from two seeds on, the sample standard deviation."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Row:
    """A variant with its cells by (seed, protocol)."""

    name: str
    variant: Variant
    cells: Mapping[tuple[int, str], Cell | Gap]
    seeds: tuple[int, ...]
    protocols: tuple[str, ...]
    manifests: tuple[Path, ...] = ()
    """What made the weights behind the cells, one a seed that was trained."""

    def of(self, protocol: str, value: str = "mean_ap") -> Spread | None:
        """One value of a protocol over the seeds that were run; None when none was."""
        found = [
            getattr(cell, value)
            for seed in self.seeds
            if isinstance(cell := self.cells[seed, protocol], Cell)
        ]
        return spread(found)

    def macro(self, value: str = "mean_ap") -> Spread | None:
        """Mean over protocols (Eq. 5) by seed, over the seeds that have every protocol."""
        return spread(
            [
                statistics.fmean(getattr(cell, value) for cell in cells)
                for cells in self._whole_seeds()
            ]
        )

    def micro(self, value: str = "mean_ap") -> Spread | None:
        """Mean over the queries of all protocols, by seed."""
        return spread(
            [
                sum(getattr(cell, value) * cell.valid_queries for cell in cells)
                / sum(cell.valid_queries for cell in cells)
                for cells in self._whole_seeds()
            ]
        )

    def gaps(self) -> dict[str, list[str]]:
        """Reason -> the cells it explains ("A2G", or "A2G seed 2" with several seeds)."""
        found: dict[str, list[str]] = {}
        for (seed, protocol), cell in self.cells.items():
            if isinstance(cell, Gap):
                place = f"{protocol} seed {seed}" if len(self.seeds) > 1 else protocol
                found.setdefault(cell.reason, []).append(place)
        return found

    def _whole_seeds(self) -> list[list[Cell]]:
        whole = []
        for seed in self.seeds:
            row = [self.cells[seed, protocol] for protocol in self.protocols]
            cells = [cell for cell in row if isinstance(cell, Cell)]
            if len(cells) == len(row):
                whole.append(cells)
        return whole


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None for no value."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def collect(config: Config) -> list[Row]:
    """All variants of the configuration with what was measured of them."""
    results = Results.of(config.dataset.name)
    digests: dict[Path, str | None] = {}

    def digest(path: Path) -> str | None:
        if path not in digests:
            digests[path] = sha256_of_file(path) if path.exists() else None
        return digests[path]

    @cache
    def outdated(training: str, seed: int) -> str | None:
        path = results.manifest(training, seed)
        if not path.exists():
            return None
        try:
            options = read_json(path)["options"]
        except (UserError, KeyError, TypeError):
            return f"{path} is damaged: train again"
        same = options == run_settings(config, training)
        return None if same else "stale: the training has other options now"

    @cache
    def untuned(name: str, seed: int) -> str | None:
        return outdated_tuning(config, name, seed)

    def cell(name: str, variant: Variant, seed: int, protocol: str) -> Cell | Gap:
        path = results.retrieval(name, seed, protocol)
        if not path.exists():
            return Gap("not run")
        if reason := outdated(variant.training, seed):
            return Gap(reason)
        sources = {"features": digest(results.features(variant.training, seed, protocol))}
        if variant.tuned:
            if reason := untuned(name, seed):
                return Gap(f"stale: the tuning {reason}")
            sources["tuning"] = digest(results.tuned(name, seed))
        return _read_cell(path, variant, sources)

    return [
        Row(
            name,
            variant,
            {
                (seed, protocol): cell(name, variant, seed, protocol)
                for seed in config.seeds
                for protocol in config.dataset.protocols
            },
            config.seeds,
            config.dataset.protocols,
            tuple(
                path
                for seed in config.seeds
                if (path := results.manifest(variant.training, seed)).exists()
            ),
        )
        for name, variant in config.variants.items()
    ]


def _read_cell(path: Path, variant: Variant, sources: Mapping[str, str | None]) -> Cell | Gap:
    try:
        content: dict[str, Any] = read_json(path)
        options = variant.model_dump(mode="json", include={"training", "flip_tta", "rerank"})
        if variant.tuned:
            del options["rerank"]
        if any(content[key] != value for key, value in options.items()) or variant.tuned != bool(
            content["tuning"]
        ):
            return Gap("stale: run with other options")
        for name, digest in sources.items():
            if digest is not None and content[name]["sha256"] != digest:
                return Gap(f"stale: the {name} changed afterwards")
        interval = content["intervals"]["mAP_interval"] or (math.nan, math.nan)
        return Cell(
            mean_ap=content["mAP"],
            trapezoid=content["mAP_trapezoid"],
            rank1=content["cmc"]["1"],
            rank5=content["cmc"]["5"],
            rank10=content["cmc"]["10"],
            chance=content["chance_mAP"],
            without_rerank=content["mAP_without_rerank"],
            low=interval[0],
            high=interval[1],
            valid_queries=content["queries"] - content["queries_without_positive"],
            breakdown=tuple(content["breakdown"]),
        )
    except (UserError, KeyError, TypeError):
        return Gap("unreadable: run `reid retrieve` again")


def percent(value: Spread | None, row: Row) -> str:
    """A share in per cent with two digits, and the spread over seeds."""
    if value is None:
        return NOT_RUN
    text = f"{100 * value.mean:.2f}"
    if value.deviation is not None:
        text += f" ± {100 * value.deviation:.2f}"
    if value.seeds < len(row.seeds):
        text += f" ({value.seeds}/{len(row.seeds)} seeds)"
    return text

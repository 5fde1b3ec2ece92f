"""The report: one HTML file that a browser opens without a network, and its figures beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from reid.artifacts import SPLITS, Results
from reid.config import Config
from reid.errors import UserError
from reid.files import read_json, sha256_of_file, sha256_of_json, write_text
from reid.progress import Progress
from reid.report import condition_plots, score_plots, training_plots
from reid.report.attention import Attention, attention
from reid.report.cells import Row, collect
from reid.report.cost import costs, stage_hours
from reid.report.drawing import Plot
from reid.report.measured import detailed, measured_rows, measurements, one_a_training
from reid.report.page import render
from reid.report.ranked import Lists, ranked_lists
from reid.report.rows import ablation_rows, protocol_rows
from reid.report.runs import Run, runs
from reid.report.table import footnotes
from reid.retrieval.choice import outdated

Found = TypeVar("Found")


@dataclass(frozen=True)
class Gaps:
    """What is not shown, and why: a missing artifact never ends the report."""

    reasons: list[str] = field(default_factory=list)

    def attempt(self, what: str, make: Callable[[], Found]) -> list[Found]:
        """The result of `make`, or nothing and a reason."""
        try:
            return [make()]
        except UserError as error:
            self.reasons.append(f"{what}: {error}")
            return []


def run(config: Config) -> Path:
    """Write report.html and the figures; returns the path of the page.

    Whatever was not run, or was made with other options, is left out and listed on the page.
    """
    results, gaps = Results.of(config.dataset.name), Gaps()
    folder = results.figures()
    for old in (path for path in folder.glob("*") if path.suffix in (".svg", ".pdf", ".csv")):
        old.unlink()
    rows, trained = collect(config), runs(config)
    gaps.reasons.extend(_not_run(rows, trained))
    row = detailed(rows, config.report.variant)
    settings = config.model_dump(mode="json")
    content: dict[str, object] = {
        "dataset": config.dataset.name,
        "compares": config.dataset.name == "detreidx",
        "protocols": config.dataset.protocols,
        "seeds": config.seeds,
        "row": row,
        "ablation": ablation_rows(rows),
        "by_protocol": {p: protocol_rows(rows, p) for p in config.dataset.protocols},
        "notes": list(footnotes(config, rows)),
        "hours": stage_hours(config),
        "runs": trained,
        "devices": sorted({m["gpu"] or m["device"] for run in trained if (m := run.manifest)}),
        "faces": config.report.faces,
        "data": _data(results, config),
        "configuration": yaml.safe_dump(settings, sort_keys=False),
        "config_digest": sha256_of_json(settings)[:16],
    }
    parts: dict[str, Callable[[], object]] = {
        "scores": lambda: _scores(config, rows, folder),
        "conditions": lambda: _conditions(config, rows, row, folder),
        "training": lambda: _training(trained, folder),
        "tuning": lambda: _tuning(config, folder, gaps),
        "lists": lambda: _lists(config, row, gaps),
        "attention": lambda: _attention(config, rows, folder, gaps),
        "costs": lambda: costs(config, trained),
    }
    progress = Progress("report", len(parts), "parts")
    for name, make in parts.items():
        content[name] = make()
        progress.advance(note=name)
    write_text(results.report(), render({**content, "gaps": gaps.reasons}))
    return results.report()


def _training(trained: Sequence[Run], folder: Path) -> list[Plot]:
    return [
        *training_plots.stage1_plots(trained, folder),
        *training_plots.stage2_plots(trained, folder),
    ]


def _scores(config: Config, rows: Sequence[Row], folder: Path) -> list[Plot]:
    results = Results.of(config.dataset.name)
    found = [measurements(results, row) for row in one_a_training(rows, most=4)]
    paper = config.dataset.name == "detreidx"
    ablation = [row for row in rows if not row.variant.reference]
    return [
        *score_plots.ablation_plots(ablation, folder, paper=paper),
        *score_plots.cmc_plots(found, config.dataset.protocols, folder),
    ]


def _conditions(config: Config, rows: Sequence[Row], row: Row | None, folder: Path) -> list[Plot]:
    """The first row of the ablation that was run, and the one shown in detail."""
    if row is None:
        return []
    results = Results.of(config.dataset.name)
    pair = list({each.name: each for each in (*measured_rows(rows)[:1], row)}.values())
    found = [measurements(results, each) for each in pair]
    return [
        plot
        for attribute in condition_plots.CONDITIONS
        for plot in condition_plots.condition_plots(
            attribute, found, config.dataset.protocols, folder
        )
    ]


def _tuning(config: Config, folder: Path, gaps: Gaps) -> list[Plot]:
    results = Results.of(config.dataset.name)
    plots = []
    for name, variant in config.variants.items():
        for seed in config.seeds if variant.tuned else ():

            def draw(name: str = name, seed: int = seed) -> Plot:
                path = results.tuned(name, seed)
                if reason := outdated(config, name, seed):
                    raise UserError(f"{path} {reason}")
                label = config.variants[name].label
                return training_plots.surface_plot(read_json(path), label, folder)

            plots += gaps.attempt(f"Tuning of {variant.label}", draw)
    return plots


def _lists(config: Config, row: Row | None, gaps: Gaps) -> list[Lists]:
    if row is None:
        return []
    return [
        lists
        for protocol, found in measurements(Results.of(config.dataset.name), row).items()
        for lists in gaps.attempt(
            f"Ranked lists of {protocol}", partial(ranked_lists, config, found)
        )
    ]


def _attention(config: Config, rows: Sequence[Row], folder: Path, gaps: Gaps) -> list[Attention]:
    """Of each training with temporal attention, on its first measured protocol."""
    results = Results.of(config.dataset.name)
    last = {row.variant.training: row for row in measured_rows(rows)}
    return [
        shown
        for name, row in last.items()
        if config.trainings[name].model.pooling.kind == "attention"
        for found in list(measurements(results, row).values())[:1]
        for shown in gaps.attempt(
            f"Temporal attention of {name}",
            partial(attention, config, found, folder),
        )
    ]


def _not_run(rows: Sequence[Row], trained: Sequence[Run]) -> list[str]:
    measured = [
        f"{row.variant.label}, {', '.join(places)}: {reason}"
        for row in rows
        for reason, places in row.gaps().items()
    ]
    return measured + [
        f"Training {run.training}, seed {run.seed}: {run.gap}" for run in trained if run.gap
    ]


def _data(results: Results, config: Config) -> list[tuple[str, str]]:
    """Digests of the index of each split: what data the numbers are of."""
    splits = [split for split in SPLITS if split in ("train", *config.dataset.protocols)]
    paths = [(split, results.index(split)) for split in splits]
    return [(s, sha256_of_file(path) if path.exists() else "not there") for s, path in paths]

"""The report: one HTML file that a browser opens without a network, and its figures beside it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reid.chain import Chain, name_of
from reid.config import Config
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.files import read_json, sha256_of_file, sha256_of_json, write_text
from reid.paths import SPLITS, Results
from reid.progress import duration
from reid.report import collect, cost, figures
from reid.report.attention import attention
from reid.report.collect import AblationRow, TrainingRecord
from reid.report.figures import Look, Plot
from reid.report.ranked import ranked_lists
from reid.report.table import ablation, breakdown, footnotes, in_order, interval, percent, places
from reid.steps import TEMPLATES

CMC_ROWS = 4
FIGURE = re.compile(
    r"(ablation|cmc|map_by_\w+|training_stage\d|attention_.+|tuning_.+)\.(svg|pdf|csv)"
)
"""Names of the figures' files: those of an earlier report are removed, nothing else."""
SCORES = {
    "mean_ap": "mAP",
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "without_rerank": "Cosine only",
    "trapezoid": "Trapezoid",
    "chance": "Chance",
}
"""Score -> its column in the table of a protocol."""


class Gaps(list[str]):
    """What the page lacks, each with its reason."""

    @contextmanager
    def around(self, part: str) -> Iterator[None]:
        """Make a UserError the reason why a part is missing: no artifact ends the report."""
        try:
            yield
        except UserError as error:
            self.append(f"{part}: {error}")


def run(config: Config) -> Path:
    """Write report.html and the figures; returns the path of the page.

    Whatever was not run, or was made with other options, is left out and listed on the page.
    """
    results = Results.of(config)
    look = Look(results.figures(), list(config.trainings))
    for path in look.folder.glob("*"):
        if FIGURE.fullmatch(path.name):
            path.unlink()
    rows, records = collect.ablation_rows(config), collect.training_records(config)
    row = collect.detailed(rows, config.report.variant)
    gaps = Gaps(
        f"{row.label}, {', '.join(where)}: {reason}"
        for row in rows
        for reason, where in row.reasons().items()
    )
    gaps += [f"Training {r.training}, seed {r.seed}: {r.gap}" for r in records if r.gap]
    settings, indexes = config.model_dump(mode="json"), map(results.index, SPLITS)
    content = {
        "config": config,
        "compares": config.dataset.name == "detreidx",
        "row": row,
        "facts": {name: percent(row, p) for p, name in places(row).items()} if row else {},
        "ablation": ablation_table(rows),
        "notes": list(footnotes(config, rows)),
        "by_protocol": {p: protocol_table(rows, p) for p in config.dataset.protocols},
        "scores": _score_plots(config, rows, look),
        "conditions": _condition_plots(rows, row, look),
        "lists": _ranked_lists(config, row, gaps),
        "attention": _attention(config, rows, look, gaps),
        "training": list(figures.training_plots(records, look)),
        "tuning": _tuning_plots(config, look, gaps),
        "costs": cost.costs(config, records),
        "times": cost.step_times(config),
        "records": records,
        "rows": rows,
        "provenance": pd.DataFrame(map(_provenance, records)).fillna(""),
        "data": {path.stem: sha256_of_file(path) for path in indexes if path.exists()},
        "configuration": yaml.safe_dump(settings, sort_keys=False),
        "config_digest": sha256_of_json(settings)[:16],
    }
    text = render({**content, "gaps": gaps}).encode("utf-8", "replace")
    chain = Chain(config)
    with chain.record(chain.steps.report(), with_gaps=True):
        write_text(results.report(), text.decode("utf-8"))
    return results.report()


def render(content: Mapping[str, Any]) -> str:
    """The page. Text is escaped; the figures are HTML already. A name that is missing raises."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["scene"] = scene
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(style=style, **content)


def scene(tracklet: Tracklet) -> str:
    """Where a tracklet was seen from, in a few words: what its layout tells."""
    units = {"altitude": "m up", "distance": "m away", "angle": "degrees"}
    values = {unit: getattr(tracklet, name) for name, unit in units.items()}
    parts = [f"{value:g} {unit}" for unit, value in values.items() if not math.isnan(value)]
    if not parts and tracklet.view:
        parts.append(tracklet.view)
    if tracklet.session is not None:
        parts.append(f"session {tracklet.session}")
    elif tracklet.camera or not parts:
        parts.append(f"camera {tracklet.camera}")
    return ", ".join(parts)


def ablation_table(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """The ablation table with the interval of each mAP on a second line of its cell."""
    table = ablation(rows)
    for protocol in rows[0].protocols:
        below = pd.Series(_second_lines(rows, protocol))
        table[protocol] += below.reindex(table.index, fill_value="")
    return table


def protocol_table(rows: Sequence[AblationRow], protocol: str) -> pd.DataFrame:
    """For each row, references last, its numbers on one protocol."""
    ordered = in_order(rows)
    table = pd.DataFrame({"Variant": [row.label for row in ordered]})
    for score, name in SCORES.items():
        table[name] = [percent(row, protocol, score) for row in ordered]
    table["mAP"] += _second_lines(rows, protocol)
    return table


def _second_lines(rows: Sequence[AblationRow], protocol: str) -> list[str]:
    return [f"\n{interval(row, protocol, 1)}".rstrip() for row in in_order(rows)]


def _score_plots(config: Config, rows: Sequence[AblationRow], look: Look) -> list[Plot]:
    firsts = [row.first() for row in collect.one_a_training(rows, most=CMC_ROWS)]
    shown = [first[p] for p in config.dataset.protocols for first in firsts if p in first]
    paper = config.dataset.name == "detreidx"
    ablation_plot = figures.ablation_plot(in_order(rows), look, paper=paper)
    return [*ablation_plot, *figures.cmc_plot(shown, look)]


def _condition_plots(
    rows: Sequence[AblationRow], row: AblationRow | None, look: Look
) -> list[Plot]:
    """Of the first row of the ablation that was measured, and the one shown in detail."""
    if row is None:
        return []
    shown = [*(each for each in collect.measured(rows)[:1] if each is not row), row]
    groups = breakdown(shown)
    first = groups.groupby(["variant", "protocol"])["seed"].transform("first")
    return list(figures.condition_plots(groups[groups["seed"] == first], shown, look))


def _tuning_plots(config: Config, look: Look, gaps: Gaps) -> list[Plot]:
    plots, chain = [], Chain(config)
    tuned = {name: variant for name, variant in config.variants.items() if variant.tuned}
    for (name, variant), seed in product(tuned.items(), config.seeds):
        job = chain.steps.tune(name, seed)
        with gaps.around(f"Tuning of {variant.label}, seed {seed}"):
            if reason := collect.gap(chain, job):
                raise UserError(reason)
            label, training = variant.label, variant.training
            plots.append(figures.tuning_plot(read_json(job.output), label, training, look))
    return plots


def _ranked_lists(config: Config, row: AblationRow | None, gaps: Gaps) -> dict[str, Any]:
    """By protocol and group, of the row shown in detail."""
    lists = {}
    for protocol, measurement in (row.first() if row else {}).items():
        with gaps.around(f"Ranked lists of {protocol}"):
            lists[protocol] = ranked_lists(config, measurement)
    return lists


def _attention(
    config: Config, rows: Sequence[AblationRow], look: Look, gaps: Gaps
) -> dict[str, Any]:
    """By training and protocol: of each with temporal attention, on its first measured one."""
    shown = {}
    for name, row in {row.variant.training: row for row in collect.measured(rows)}.items():
        measurement = next(iter(row.first().values()))
        if config.trainings[name].model.pooling.kind == "attention":
            with gaps.around(f"Temporal attention of {name}"):
                shown[f"{name}, {measurement.protocol}"] = attention(config, measurement, look)
    return shown


def _provenance(record: TrainingRecord) -> dict[str, str]:
    head, manifest = {"Training": record.training, "Seed": str(record.seed)}, record.manifest
    if manifest is None:
        return {**head, "Finished": record.gap or ""}
    made = manifest.made
    machine = (made["gpu"] or made["device"], made["precision"], made["host"])
    git = made["git"] or {"sha": "none", "dirty": False}
    return {
        **head,
        "Finished": made["finished"].replace("T", " ").replace("+00:00", " UTC"),
        "Starts": str(record.starts),
        "Time": duration(record.seconds),
        "Jobs": ", ".join(record.jobs) or "none",
        "Machine": ", ".join(filter(None, machine)),
        "Threads": str(made["threads"]),
        "Commit": git["sha"][:10] + (" changed" if git["dirty"] else ""),
        "Stamp": name_of(manifest.stamp),
    }

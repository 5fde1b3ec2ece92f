"""The report: one HTML file that a browser opens without a network, and its figures beside it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reid.config import Config
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.files import read_json, sha256_of_file, sha256_of_json, write_text
from reid.paths import SPLITS, Results
from reid.progress import Progress, duration
from reid.report import collect, cost, figures
from reid.report.attention import Sheet, attention
from reid.report.collect import AblationRow, TrainingRecord
from reid.report.drawing import Look, Plot
from reid.report.ranked import RankedQuery, ranked_lists
from reid.report.table import MEANS, ablation, breakdown, footnotes, in_order, interval, percent
from reid.retrieval.choice import outdated

Part = TypeVar("Part")

TEMPLATES = Path(__file__).parent / "templates"
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


def run(config: Config) -> Path:
    """Write report.html and the figures; returns the path of the page.

    Whatever was not run, or was made with other options, is left out and listed on the page.
    """
    results = Results.of(config.dataset.name)
    look = Look(results.figures(), list(config.trainings))
    for path in look.folder.glob("*"):
        if FIGURE.fullmatch(path.name):
            path.unlink()
    rows, records = collect.ablation_rows(config), collect.training_records(config)
    row = collect.detailed(rows, config.report.variant)
    gaps, settings = _not_run(rows, records), config.model_dump(mode="json")
    content: dict[str, object] = {
        "config": config,
        "compares": config.dataset.name == "detreidx",
        "row": row,
        "facts": {name: percent(row, p) for p, name in _places(row).items()} if row else {},
        "variants": [each.name for each in in_order(rows)],
        "ablation": ablation_table(rows),
        "columns": {name: f"{place}_mean_ap" for place, name in _places(rows[0]).items()},
        "by_protocol": {p: protocol_table(rows, p) for p in config.dataset.protocols},
        "notes": list(footnotes(config, rows)),
        "trained": [record.manifest for record in records if record.manifest],
        "times": cost.step_times(config),
        "records": records,
        "provenance": pd.DataFrame([_provenance(record) for record in records]).fillna(""),
        "data": _index_digests(config),
        "configuration": yaml.safe_dump(settings, sort_keys=False),
        "config_digest": sha256_of_json(settings)[:16],
    }
    parts: dict[str, Callable[[], object]] = {
        "scores": lambda: _score_plots(config, rows, look),
        "conditions": lambda: _condition_plots(rows, row, look),
        "training": lambda: figures.training_plots(records, look),
        "tuning": lambda: _tuning_plots(config, look, gaps),
        "lists": lambda: _ranked_lists(config, row, gaps),
        "attention": lambda: _attention(config, rows, look, gaps),
        "costs": lambda: cost.costs(config, records),
    }
    progress = Progress("report", len(parts), "parts")
    for name, make in parts.items():
        content[name] = make()
        progress.advance(note=name)
    text = render({**content, "gaps": gaps}).encode("utf-8", "replace")
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
    environment.filters |= {"scene": scene, "date": date, "commit": commit}
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


def date(manifest: Mapping[str, Any]) -> str:
    """When a training finished."""
    return str(manifest["finished"]).replace("T", " ").replace("+00:00", " UTC")


def commit(manifest: Mapping[str, Any]) -> str:
    """The commit that a training ran."""
    git = manifest["git"]
    return git["sha"][:10] + (" changed" if git["dirty"] else "") if git else "none"


def ablation_table(rows: Sequence[AblationRow]) -> pd.DataFrame:
    """The ablation table with the interval of each mAP on a second line of its cell."""
    table, ordered = ablation(rows), in_order(rows)
    for protocol in rows[0].protocols:
        below = [_second_line(interval(row, protocol, 1)) for row in ordered]
        rest = [""] * (len(table) - len(ordered))
        table[protocol] = [a + b for a, b in zip(table[protocol], below + rest, strict=True)]
    return table


def protocol_table(rows: Sequence[AblationRow], protocol: str) -> pd.DataFrame:
    """For each row, references last, its numbers on one protocol."""
    lines = []
    for row in in_order(rows):
        texts = {name: percent(row, protocol, score) for score, name in SCORES.items()}
        texts["mAP"] += _second_line(interval(row, protocol, 1))
        lines.append({"Variant": row.label, **texts})
    return pd.DataFrame(lines)


def _second_line(text: str) -> str:
    return f"\n{text}" if text else ""


def _places(row: AblationRow) -> dict[str, str]:
    """Protocols and means -> their columns."""
    return {**{protocol: protocol for protocol in row.protocols}, **MEANS}


def _attempt(gaps: list[str], what: str, make: Callable[[], Part]) -> list[Part]:
    """The result of `make`, or nothing and a reason in `gaps`: no artifact ends the report."""
    try:
        return [make()]
    except UserError as error:
        gaps.append(f"{what}: {error}")
        return []


def _not_run(rows: Sequence[AblationRow], records: Sequence[TrainingRecord]) -> list[str]:
    reasons = [
        f"{row.label}, {', '.join(places)}: {reason}"
        for row in rows
        for reason, places in row.reasons().items()
    ]
    return reasons + [f"Training {r.training}, seed {r.seed}: {r.gap}" for r in records if r.gap]


def _score_plots(config: Config, rows: Sequence[AblationRow], look: Look) -> list[Plot]:
    firsts = [row.first() for row in collect.one_a_training(rows, most=CMC_ROWS)]
    shown = [first[p] for p in config.dataset.protocols for first in firsts if p in first]
    paper = config.dataset.name == "detreidx"
    ablation_plots = figures.ablation_plots(in_order(rows), look, paper=paper)
    return ablation_plots + figures.cmc_plots(shown, look)


def _condition_plots(
    rows: Sequence[AblationRow], row: AblationRow | None, look: Look
) -> list[Plot]:
    """Of the first row of the ablation that was measured, and the one shown in detail."""
    if row is None:
        return []
    shown = [*(each for each in collect.measured(rows)[:1] if each is not row), row]
    groups = breakdown(shown)
    first = groups.groupby(["variant", "protocol"])["seed"].transform("first")
    return figures.condition_plots(groups[groups["seed"] == first], shown, look)


def _tuning_plots(config: Config, look: Look, gaps: list[str]) -> list[Plot]:
    def draw(name: str, seed: int) -> Plot:
        variant, path = config.variants[name], Results.of(config.dataset.name).tuned(name, seed)
        if reason := outdated(config, name, seed):
            raise UserError(f"{path} {reason}")
        return figures.tuning_plot(read_json(path), variant.label, variant.training, look)

    return [
        plot
        for name, variant in config.variants.items()
        if variant.tuned
        for seed in config.seeds
        for plot in _attempt(gaps, f"Tuning of {variant.label}", partial(draw, name, seed))
    ]


def _ranked_lists(
    config: Config, row: AblationRow | None, gaps: list[str]
) -> dict[str, dict[str, list[RankedQuery]]]:
    """By protocol and group, of the row shown in detail."""
    return {
        protocol: lists
        for protocol, measurement in (row.first() if row else {}).items()
        for lists in _attempt(
            gaps, f"Ranked lists of {protocol}", partial(ranked_lists, config, measurement)
        )
    }


def _attention(
    config: Config, rows: Sequence[AblationRow], look: Look, gaps: list[str]
) -> dict[str, tuple[Plot, list[Sheet]]]:
    """By training and protocol: of each with temporal attention, on its first measured one."""
    last = {row.variant.training: row for row in collect.measured(rows)}
    return {
        f"{name}, {measurement.protocol}": shown
        for name, row in last.items()
        if config.trainings[name].model.pooling.kind == "attention"
        for measurement in list(row.first().values())[:1]
        for shown in _attempt(
            gaps, f"Temporal attention of {name}", partial(attention, config, measurement, look)
        )
    }


def _provenance(record: TrainingRecord) -> dict[str, str]:
    head, manifest = {"Training": record.training, "Seed": str(record.seed)}, record.manifest
    if manifest is None:
        return {**head, "Finished": record.gap or ""}
    machine = (manifest["gpu"] or manifest["device"], manifest["precision"], manifest["host"])
    return {
        **head,
        "Finished": date(manifest),
        "Starts": str(record.starts),
        "Time": duration(record.seconds),
        "Jobs": ", ".join(record.jobs) or "none",
        "Machine": ", ".join(filter(None, machine)),
        "Commit": commit(manifest),
        "Fingerprint": manifest["fingerprint"],
    }


def _index_digests(config: Config) -> list[tuple[str, str]]:
    """Digests of the index of each split: what data the numbers are of."""
    results = Results.of(config.dataset.name)
    splits = [split for split in SPLITS if split in ("train", *config.dataset.protocols)]
    paths = [(split, results.index(split)) for split in splits]
    return [(s, sha256_of_file(path) if path.exists() else "not there") for s, path in paths]

"""Figures fit for a paper: one column wide, readable in gray, each with the csv behind it.

Retrieval (ablation, CMC, capture conditions), training (Fig. 3) and tuning. A training has the same
color, dashes and marker in each. Generators yield no plot where there is nothing to draw.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reid.files import replacing, write_text
from reid.report.collect import AblationRow, Measurement, TrainingRecord, one_line
from reid.retrieval.breakdown import HEIGHT_EDGES

WIDTH = 3.3
"""Inches: one column of a two-column paper."""
INK, RULE = "#1b1c1d", "#c9cacb"
_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
STYLE: dict[Any, Any] = {
    **dict.fromkeys(_INKED, INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "text.parse_math": False,  # a label may hold "$"
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # a paper takes no bitmap fonts
    "svg.fonttype": "none",  # text stays text
}
Series = dict[str, Any]
"""Keyword arguments of a line: color, dashes and marker each tell it from the others."""
SERIES: tuple[Series, ...] = (
    {"color": "#1f3b73", "linestyle": "solid", "marker": "o"},
    {"color": "#c96f1e", "linestyle": (0, (4, 1.5)), "marker": "s"},
    {"color": "#3d8f68", "linestyle": (0, (5, 1.2, 1, 1.2)), "marker": "^"},
    {"color": "#8a4fa3", "linestyle": (0, (2, 1)), "marker": "v"},
    {"color": "#5b6b2f", "linestyle": (0, (6, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": "#8a8c90", "linestyle": (0, (1, 1.2)), "marker": "D"},
)
HOLLOW: Series = {"markerfacecolor": "none"}
"""Of a line that stands beside another one of the same training."""
CMC_RANKS = 20
CONDITIONS = {
    "altitude": "altitude of the drone (m)",
    "distance": "horizontal distance (m)",
    "angle": "camera below the horizon (degrees)",
    "pixel height": "height of the crop (pixels)",
}
"""Attribute of the breakdown -> label of its axis."""
STAGES = {
    1: "Contrastive loss of the text contexts, mean over the steps of an epoch (the paper's "
    "Fig. 3a). Trainings that share stage 1 have one line.",
    2: "Accuracy of the identity classifier on training batches, as a share, and the whole loss "
    "(the paper's Fig. 3b).",
}
"""Caption of the training curves of each stage."""


@dataclass(frozen=True)
class Plot:
    """A finished figure: what the page shows and says of it."""

    name: str
    title: str
    alt: str
    """What a reader who does not see it must know."""
    caption: str
    svg: str
    """For the page: colors are its CSS variables."""
    csv: str


@dataclass(frozen=True)
class Look:
    """Where figures are written, and how each training is drawn in all of them."""

    folder: Path
    trainings: Sequence[str]

    def __getitem__(self, training: str) -> Series:
        """Series repeat from the seventh training on."""
        return SERIES[self.trainings.index(training) % len(SERIES)]

    def save(
        self, figure: Figure, name: str, frame: pd.DataFrame, *, title: str, alt: str, caption: str
    ) -> Plot:
        """Write a figure as svg, pdf and csv (`frame`); equal numbers give equal bytes."""
        csv = frame.to_csv(index=False)
        write_text(self.folder / f"{name}.csv", csv)
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # one layout serves both files
            for suffix, date in (("svg", "Date"), ("pdf", "CreationDate")):
                with replacing(self.folder / f"{name}.{suffix}") as file:
                    figure.savefig(file, format=suffix, metadata={date: None}, transparent=True)
        svg = inline((self.folder / f"{name}.svg").read_text(encoding="utf-8"), alt)
        return Plot(name, title, alt, caption, svg, csv)


def inline(svg: str, alt: str) -> str:
    """An svg file as an element of the page: named for screen readers, in the page's colors."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", body, count=2)
    colors = {series["color"]: f"var(--series-{place})" for place, series in enumerate(SERIES)}
    fonts = {"'DejaVu Sans'": "var(--font)", INK: "var(--ink)", RULE: "var(--rule)"}
    for value, variable in (colors | fonts).items():
        body = body.replace(value, variable)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


@contextmanager
def canvas(height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure one column wide and `height` inches high, with its axes, in the house style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(**subplots)


@contextmanager
def panels(protocols: Sequence[str]) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """A figure with a panel a protocol, named at the right, one below the other."""
    count = len(protocols)
    with canvas(1.35 * count + 0.6, nrows=count, sharex=True, squeeze=False) as (figure, grid):
        for protocol, axes in zip(protocols, grid[:, 0], strict=True):
            beside: Series = {"transform": axes.transAxes, "rotation": 270, "va": "center"}
            axes.text(1.01, 0.5, protocol, fontweight="bold", **beside)
        yield figure, dict(zip(protocols, grid[:, 0], strict=True))


def legend_above(axes: Axes, columns: int = 2) -> None:
    """The legend over the axes, where it hides nothing: of every line that was given a label."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_child")]
    place: Series = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
    labels = [str(line.get_label()) for line in lines]  # also those that start with "_"
    axes.legend(lines, labels, ncols=columns, handlelength=2.6, columnspacing=1.2, **place)


def horizontal(axes: Axes, y: float, text: str) -> None:
    """A dotted line across the axes with its name, for comparison."""
    axes.axhline(y, color=INK, linestyle=(0, (1, 1.2)), linewidth=1)
    right: Series = {"transform": axes.get_yaxis_transform(), "ha": "right"}
    axes.text(0.99, y, text, va="bottom", fontsize=7, **right)


def ablation_plot(rows: Sequence[AblationRow], look: Look, *, paper: bool) -> Iterator[Plot]:
    """mAP of every row by protocol, with intervals, and the mean over protocols.

    paper: also the paper's figures, where they compare.
    """
    shown = [row for row in rows if row.measurements]
    if not shown:
        return
    protocols, lines = shown[0].protocols, []
    for row in shown:
        for protocol in protocols:
            numbers = (row.spread(protocol, score).mean for score in ("mean_ap", "low", "high"))
            lines.append((row.name, row.label, protocol, *numbers))
        lines.append((row.name, row.label, "macro", row.spread("macro").mean, None, None))
        if paper:
            lines.append((row.name, row.label, "paper", row.variant.paper, None, None))
    columns = ["variant", "label", "protocol", "mAP", "low", "high"]
    frame = pd.DataFrame(lines, columns=columns).dropna(subset="mAP")
    shifts = {protocol: 0.17 * place for place, protocol in enumerate(protocols)}
    markers = {**dict(zip(protocols, "os^DvP", strict=False)), "macro": "|", "paper": "x"}
    with canvas(0.42 * len(shown) + 0.75) as (figure, axes):
        for place, row in enumerate(shown):
            left, color = axes.get_yaxis_transform(), look[row.variant.training]["color"]
            axes.text(0, place - 0.2, row.label, fontsize=7, transform=left)
            for _, line in frame[frame["variant"] == row.name].iterrows():
                name, y = line["protocol"], place + shifts.get(line["protocol"], 0.17) + 0.02
                axes.plot(line[["low", "high"]], [y, y], color=color, linewidth=0.9)
                size = 9 if name == "macro" else 4
                axes.plot(line["mAP"], y, markers[name], color=color, markersize=size, **HOLLOW)
        for name in frame["protocol"].unique():
            label = "mean (Eq. 5)" if name == "macro" else name
            axes.plot([], [], markers[name], color=INK, label=label, **HOLLOW)
        legend_above(axes, columns=5)
        axes.set_ylim(len(shown) - 0.35, -0.55)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mAP (%), with 95 % intervals")
    means = frame[frame["protocol"] == "macro"].nlargest(1, "mAP")[["label", "mAP"]]
    best = "".join(f" Highest mean: {a}, {b:.1f} %." for a, b in means.to_numpy())
    yield look.save(
        figure, "ablation", frame,
        title="mAP of each row",
        alt=f"mAP of {len(shown)} rows of the ablation by protocol.{best}",
        caption="mAP of each row by protocol; lines are 95 % bootstrap intervals over query "
        "identities, the bar is the mean over protocols. One color a training.",
    )  # fmt: skip


def cmc_plot(measurements: Sequence[Measurement], look: Look) -> Iterator[Plot]:
    """Share of queries whose first hit is at a rank or before, a panel a protocol."""
    if not measurements:
        return
    ranks = np.arange(1, CMC_RANKS + 1)
    parts, texts = [], []
    with panels(list(dict.fromkeys(each.protocol for each in measurements))) as (figure, grid):
        for each in measurements:
            first = np.array([rank for rank in each.content["per_query"]["first_rank"] if rank])
            shares = (first[:, None] <= ranks).mean(axis=0)
            style = look[each.training]
            grid[each.protocol].plot(ranks, 100 * shares, label=each.label, markevery=3, **style)
            head = {"variant": each.variant, "seed": each.seed, "protocol": each.protocol}
            parts.append(pd.DataFrame({**head, "rank": ranks, "share": shares}))
            texts.append(f"{each.label} {each.protocol} {100 * shares[0]:.0f} %")
        for axes in grid.values():
            axes.set_ylabel("queries (%)")
            axes.set_ylim(top=101)
        axes.set_xlabel("rank of the first hit, at most")
        axes.set_xticks([1, 5, 10, 15, 20])
        legend_above(next(iter(grid.values())), columns=1)
    yield look.save(
        figure, "cmc", pd.concat(parts),
        title="CMC curves",
        alt=f"Share of queries with a hit up to each rank. Rank 1: {'; '.join(texts)}.",
        caption="Share of queries whose first hit is at this rank or before; the last row of each "
        "training.",
    )  # fmt: skip


def condition_plots(
    groups: pd.DataFrame, rows: Sequence[AblationRow], look: Look
) -> Iterator[Plot]:
    """mAP against each of CONDITIONS, a panel a protocol.

    groups: the breakdown of `rows`, one seed each. The last row is drawn filled, with its intervals
    and the number of queries.
    """
    # In G2A it is the gallery that the drone has seen, elsewhere the queries.
    side = np.where(groups["protocol"] == "G2A", "gallery", "query")
    groups = groups[(groups["side"] == side) & groups["mAP"].notna()]
    for attribute in CONDITIONS:
        part = groups[groups["attribute"] == attribute]
        if len(part):
            yield _condition_plot(attribute, part, rows, look)


def _condition_plot(
    attribute: str, groups: pd.DataFrame, rows: Sequence[AblationRow], look: Look
) -> Plot:
    by_height = attribute == "pixel height"  # groups are not evenly wide: at equal distances
    texts = []
    with panels(list(groups["protocol"].unique())) as (figure, grid):
        for (protocol, axes), row in product(grid.items(), rows):
            part = groups[(groups["protocol"] == protocol) & (groups["variant"] == row.name)]
            x = part["group"].map(HEIGHT_EDGES.index if by_height else float)
            style, detailed = look[row.variant.training], row is rows[-1]
            fill = {} if detailed else HOLLOW
            axes.plot(x, 100 * part["mAP"], label=row.label, **style, **fill)
            if not detailed or part.empty:
                continue
            low, high = (100 * part[end].fillna(part["mAP"]) for end in ("mAP_low", "mAP_high"))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
            small: Series = {"textcoords": "offset points", "fontsize": 5.5, "ha": "center"}
            for place, queries in zip(x, part["queries"], strict=True):
                axes.annotate(str(queries), (place, 0), (0, 2), **small)
            ends = part[["mAP", "group"]].iloc[[0, -1]].to_numpy()
            texts += [f"{protocol} {100 * mean:.0f} % at {group:g}" for mean, group in ends]
        for axes in grid.values():
            axes.set_ylabel("mAP (%)")
            axes.margins(y=0.2)
            axes.set_ylim(bottom=0)
        if by_height:
            names = [f"<{HEIGHT_EDGES[1]}", *(f"{edge}+" for edge in HEIGHT_EDGES[1:])]
            shown = names[: 1 + HEIGHT_EDGES.index(groups["group"].max())]
            axes.set_xticks(range(len(shown)), shown, fontsize=7)
        axes.set_xlabel(CONDITIONS[attribute])
        legend_above(next(iter(grid.values())), columns=1)
    return look.save(
        figure, f"map_by_{attribute.replace(' ', '_')}", groups,
        title=f"mAP by {attribute}",
        alt=f"mAP by {attribute} of {rows[-1].label}: {'; '.join(texts)}.",
        caption=f"By {attribute} of the queries; in G2A, where these are on the ground, of the "
        "positives. Filled: the row in detail, with its 95 % interval over identities and, at the "
        "bottom, the number of queries.",
    )  # fmt: skip


def training_plots(records: Sequence[TrainingRecord], look: Look) -> Iterator[Plot]:
    """Loss of stage 1 (Fig. 3a), and accuracy and loss of stage 2 (Fig. 3b), by epoch."""
    for stage, caption in STAGES.items():
        if shown := [record for record in records if stage in record.curves]:
            yield _training_plot(stage, caption, shown, look)


def _training_plot(stage: int, caption: str, records: Sequence[TrainingRecord], look: Look) -> Plot:
    values = ["loss"] if stage == 1 else ["accuracy", "loss"]  # a panel each
    texts = []
    size = {"nrows": len(values), "sharex": True, "squeeze": False}
    with canvas(1.4 * len(values) + 0.8, **size) as (figure, grid):
        for (axes, value), record in product(zip(grid[:, 0], values, strict=True), records):
            curve = record.curves[stage]
            line = axes.plot(curve["epoch"], curve[value], **look[record.training])[0]
            line.set_markevery(max(1, len(curve) // 8))
            if record.seed == records[0].seed:  # the others look the same
                line.set_label(record.training)
            ends = " to ".join(f"{end:.3g}" for end in curve[value].iloc[[0, -1]])
            texts.append(f"{_name(record)}: {value} {ends}")
            axes.set_ylabel(value)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        legend_above(grid[0, 0])
    return look.save(
        figure, f"training_stage{stage}", pd.concat(record.curves[stage] for record in records),
        title=f"Stage {stage}: {' and '.join(values)}",
        alt=f"Stage {stage} by epoch. {'; '.join(texts)}.",
        caption=caption,
    )  # fmt: skip


def tuning_plot(tuning: Mapping[str, Any], label: str, training: str, look: Look) -> Plot:
    """mAP on held-out identities along each parameter of re-ranking, through the chosen triple."""
    names = {"k1": "k1", "k2": "k2", "lambda_value": "lambda"}
    surface = pd.DataFrame(tuning["surface"])[[*names, "mAP"]].rename(columns=names)
    surface["mAP"] *= 100
    best = {short: tuning["chosen"][name] for name, short in names.items()}
    plain, flat = 100 * tuning["mAP_without_rerank"], tuning["flatness"]
    with canvas(3.6, nrows=3, sharey=True) as (figure, grid):
        for axes, name in zip(grid, best, strict=True):
            others = [other for other in best if other != name]
            line = surface[(surface[others] == [best[other] for other in others]).all(axis=1)]
            line = line.sort_values(name)
            axes.plot(line[name], line["mAP"], **look[training])
            horizontal(axes, plain, "without re-ranking")
            axes.locator_params(axis="x", integer=name != "lambda")
            axes.margins(y=0.2)
            axes.set_ylabel("mAP (%)")
            axes.set_xlabel(f"{name} at {', '.join(f'{o} = {best[o]:g}' for o in others)}")
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.items())
    return look.save(
        figure, f"tuning_{tuning['variant']}_seed{tuning['seed']}", surface,
        title=f"Re-ranking, tuned: {one_line(label)}",
        alt=f"mAP on held-out identities over the parameters of re-ranking. Chosen: {chosen}, with "
        f"{100 * tuning['mAP']:.2f} %; without re-ranking {plain:.2f} %.",
        caption=f"On {tuning['identities']} identities held out of training; chosen: {chosen}. "
        f"Range over the grid: {100 * flat['range']:.2f} points; "
        f"{100 * flat['share_within_half_a_point']:.0f} % of the triples lie within half a point "
        "of the best.",
    )  # fmt: skip


def _name(record: TrainingRecord) -> str:
    return record.training if record.seed == 1 else f"{record.training} (seed {record.seed})"

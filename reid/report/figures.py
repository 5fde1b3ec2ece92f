"""Figures of retrieval (ablation, CMC, capture conditions), training (Fig. 3) and tuning.

A training has the same color, dashes and marker in each. Functions return no plot where there is
nothing to draw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reid.report import drawing as draw
from reid.report.collect import AblationRow, Measurement, TrainingRecord, one_line
from reid.retrieval.breakdown import HEIGHT_EDGES

Rows = Sequence[AblationRow]
Records = Sequence[TrainingRecord]

CMC_RANKS = 20
CONDITIONS = {
    "altitude": "altitude of the drone (m)",
    "distance": "horizontal distance (m)",
    "angle": "camera below the horizon (degrees)",
    "pixel height": "height of the crop (pixels)",
}
"""Attribute of the breakdown -> label of its axis."""


def ablation_plots(rows: Rows, look: draw.Look, *, paper: bool) -> list[draw.Plot]:
    """mAP of every row by protocol, with intervals, and the mean over protocols.

    paper: also the paper's figures, where they compare.
    """
    shown = [row for row in rows if row.measurements]
    if not shown:
        return []
    protocols, lines = shown[0].protocols, []
    for row in shown:
        for place in (*protocols, "macro"):
            spreads = [row.spread(place, score) for score in ("mean_ap", "low", "high")]
            values = [None if spread is None else 100 * spread.mean for spread in spreads]
            ends = values[1:] if place in protocols else (None, None)  # a mean has no interval
            lines.append((row.name, row.label, place, values[0], *ends))
        if paper:
            lines.append((row.name, row.label, "paper", row.variant.paper, None, None))
    columns = ["variant", "label", "protocol", "mAP", "low", "high"]
    frame = pd.DataFrame(lines, columns=columns).dropna(subset="mAP")
    heights = {row.name: place for place, row in enumerate(shown)}
    colors = {row.name: look[row.variant.training]["color"] for row in shown}
    shifts = {p: 0.17 * n for n, p in enumerate(protocols)}
    markers = {**dict(zip(protocols, "os^DvP", strict=False)), "macro": "|", "paper": "x"}
    with draw.canvas(0.42 * len(shown) + 0.75) as (figure, axes):
        for _, line in frame.iterrows():
            place, color = line["protocol"], colors[line["variant"]]
            y = heights[line["variant"]] + shifts.get(place, 0.17) + 0.02
            axes.plot(line[["low", "high"]], [y, y], color=color, linewidth=0.9)
            size = 9 if place == "macro" else 4
            axes.plot(line["mAP"], y, markers[place], color=color, markersize=size, **draw.HOLLOW)
        for row in shown:
            left = axes.get_yaxis_transform()
            axes.text(0, heights[row.name] - 0.2, row.label, fontsize=7, transform=left)
        for name in frame["protocol"].unique():
            label = {"macro": "mean (Eq. 5)"}.get(name, name)
            axes.plot([], [], markers[name], color=draw.INK, label=label, **draw.HOLLOW)
        draw.legend_above(axes, columns=5)
        axes.set_ylim(len(shown) - 0.35, -0.55)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mAP (%), with 95 % intervals")
    means = frame[frame["protocol"] == "macro"].nlargest(1, "mAP")[["label", "mAP"]]
    best = "".join(f" Highest mean: {a}, {b:.1f} %." for a, b in means.to_numpy())
    return [
        draw.save(
            figure, look.folder / "ablation", frame,
            title="mAP of each row",
            alt=f"mAP of {len(shown)} rows of the ablation by protocol.{best}",
            caption="mAP of each row by protocol; lines are 95 % bootstrap intervals over "
            "query identities, the bar is the mean over protocols. One color a training.",
        )
    ]  # fmt: skip


def cmc_plots(measurements: Sequence[Measurement], look: draw.Look) -> list[draw.Plot]:
    """Share of queries whose first hit is at a rank or before, a panel a protocol."""
    if not measurements:
        return []
    ranks = np.arange(1, CMC_RANKS + 1)
    parts, texts = [], []
    with draw.panels(list(dict.fromkeys(each.protocol for each in measurements))) as (figure, grid):
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
        draw.legend_above(next(iter(grid.values())), columns=1)
    return [
        draw.save(
            figure, look.folder / "cmc", pd.concat(parts),
            title="CMC curves",
            alt=f"Share of queries with a hit up to each rank. Rank 1: {'; '.join(texts)}.",
            caption="Share of queries whose first hit is at this rank or before; the last row "
            "of each training.",
        )
    ]  # fmt: skip


def condition_plots(groups: pd.DataFrame, rows: Rows, look: draw.Look) -> list[draw.Plot]:
    """mAP against each of CONDITIONS, a panel a protocol.

    groups: the breakdown of `rows`, one seed each. The last row is drawn filled, with its intervals
    and the number of queries.
    """
    # In G2A it is the gallery that the drone has seen, elsewhere the queries.
    side = np.where(groups["protocol"] == "G2A", "gallery", "query")
    groups = groups[(groups["side"] == side) & groups["mAP"].notna()]
    parts = {name: groups[groups["attribute"] == name] for name in CONDITIONS}
    return [_condition(name, part, rows, look) for name, part in parts.items() if len(part)]


def _condition(attribute: str, groups: pd.DataFrame, rows: Rows, look: draw.Look) -> draw.Plot:
    by_number = attribute == "pixel height"  # not evenly wide: at equal distances
    texts = []
    with draw.panels(list(groups["protocol"].unique())) as (figure, grid):
        for protocol, axes in grid.items():
            for row in rows:
                part = groups[(groups["protocol"] == protocol) & (groups["variant"] == row.name)]
                if part.empty:
                    continue
                x = part["group"].map(HEIGHT_EDGES.index if by_number else float)
                style = look[row.variant.training]
                if row is not rows[-1]:
                    axes.plot(x, 100 * part["mAP"], **style, **draw.HOLLOW)
                    continue
                axes.plot(x, 100 * part["mAP"], **style)
                low, high = (100 * part[end].fillna(part["mAP"]) for end in ("mAP_low", "mAP_high"))
                axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
                small: dict[str, Any] = {"textcoords": "offset points", "fontsize": 5.5}
                for place, queries in zip(x, part["queries"], strict=True):
                    axes.annotate(str(queries), (place, 0), (0, 2), ha="center", **small)
                ends = part[["mAP", "group"]].iloc[[0, -1]].to_numpy()
                texts += [f"{protocol} {100 * mean:.0f} % at {group:g}" for mean, group in ends]
            axes.set_ylabel("mAP (%)")
            axes.margins(y=0.2)
            axes.set_ylim(bottom=0)
        if by_number:
            names = [f"<{HEIGHT_EDGES[1]}", *(f"{edge}+" for edge in HEIGHT_EDGES[1:])]
            shown = names[: 1 + HEIGHT_EDGES.index(groups["group"].max())]
            axes.set_xticks(range(len(shown)), shown, fontsize=7)
        axes.set_xlabel(CONDITIONS[attribute])
        top = next(iter(grid.values()))
        for row in rows:
            hollow = {} if row is rows[-1] else draw.HOLLOW
            top.plot([], [], label=row.label, **look[row.variant.training], **hollow)
        draw.legend_above(top, columns=1)
    return draw.save(
        figure, look.folder / f"map_by_{attribute.replace(' ', '_')}", groups,
        title=f"mAP by {attribute}",
        alt=f"mAP by {attribute} of {rows[-1].label}: {'; '.join(texts)}.",
        caption=f"By {attribute} of the queries; in G2A, where these are on the ground, of the "
        "positives. Filled: the row in detail, with its 95 % interval over identities and, at the "
        "bottom, the number of queries.",
    )  # fmt: skip


def training_plots(records: Records, look: draw.Look) -> list[draw.Plot]:
    """Loss of stage 1 (Fig. 3a), and accuracy and loss of stage 2 (Fig. 3b), by epoch."""
    stage1 = (
        "Contrastive loss of the text contexts, mean over the steps of an epoch (the paper's "
        "Fig. 3a). Trainings that share stage 1 have one line."
    )
    stage2 = (
        "Accuracy of the identity classifier on training batches, as a share, and the whole loss "
        "(the paper's Fig. 3b)."
    )
    first = _training_plot(1, stage1, ["loss"], records, look)
    return first + _training_plot(2, stage2, ["accuracy", "loss"], records, look)


def _training_plot(
    stage: int, caption: str, values: Sequence[str], records: Records, look: draw.Look
) -> list[draw.Plot]:
    """values: the columns of a curve that are drawn, a panel each."""
    curves = [(record, record.curves[stage]) for record in records if stage in record.curves]
    if not curves:
        return []
    size = {"nrows": len(values), "sharex": True, "squeeze": False}
    texts, frames = [], [curve for _, curve in curves]
    with draw.canvas(1.4 * len(values) + 0.8, **size) as (figure, grid):
        for axes, value in zip(grid[:, 0], values, strict=True):
            for record, curve in curves:
                line = axes.plot(curve["epoch"], curve[value], **look[record.training])[0]
                line.set_markevery(max(1, len(curve) // 8))
                if record.seed == curves[0][0].seed:  # the others look the same
                    line.set_label(record.training)
                ends = " to ".join(f"{end:.3g}" for end in curve[value].iloc[[0, -1]])
                texts.append(f"{_name(record)}: {value} {ends}")
            axes.set_ylabel(value)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        draw.legend_above(grid[0, 0])
    unfinished = [
        f"{_name(record)} {len(curve)} of {record.planned[stage]}"
        for record, curve in curves
        if len(curve) < record.planned[stage]
    ]
    if unfinished:
        caption += f" Unfinished, epochs: {', '.join(unfinished)}."
    return [
        draw.save(
            figure, look.folder / f"training_stage{stage}", pd.concat(frames),
            title=f"Stage {stage}: {' and '.join(values)}",
            alt=f"Stage {stage} by epoch. {'; '.join(texts)}.",
            caption=caption,
        )
    ]  # fmt: skip


def tuning_plot(tuning: Mapping[str, Any], label: str, training: str, look: draw.Look) -> draw.Plot:
    """mAP on held-out identities along each parameter of re-ranking, through the chosen triple."""
    surface = pd.DataFrame(tuning["surface"])[["k1", "k2", "lambda_value", "mAP"]]
    surface = surface.rename(columns={"lambda_value": "lambda"})
    surface["mAP"] *= 100
    triple = tuning["chosen"]
    best = {"k1": triple["k1"], "k2": triple["k2"], "lambda": triple["lambda_value"]}
    plain, flat = 100 * tuning["mAP_without_rerank"], tuning["flatness"]
    with draw.canvas(3.6, nrows=3, sharey=True) as (figure, grid):
        for axes, name in zip(grid, best, strict=True):
            others = [other for other in best if other != name]
            line = surface[(surface[others] == [best[other] for other in others]).all(axis=1)]
            line = line.sort_values(name)
            axes.plot(line[name], line["mAP"], **look[training])
            draw.horizontal(axes, plain, "without re-ranking")
            axes.locator_params(axis="x", integer=name != "lambda")
            axes.margins(y=0.2)
            axes.set_ylabel("mAP (%)")
            fixed = ", ".join(f"{other} = {best[other]:g}" for other in others)
            axes.set_xlabel(f"{name} at {fixed}")
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.items())
    return draw.save(
        figure, look.folder / f"tuning_{tuning['variant']}_seed{tuning['seed']}", surface,
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

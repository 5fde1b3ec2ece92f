"""Figures of retrieval as a whole: the ablation, and CMC curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reid.report.cells import Row, Spread
from reid.report.drawing import SERIES, Plot, drawing, legend_above, save
from reid.report.measured import Measurement

CMC_RANKS = 20


def ablation_plots(rows: Sequence[Row], folder: Path, *, paper: bool) -> list[Plot]:
    """mAP of every row by protocol, with intervals, and their mean; nothing without a number.

    paper: also the paper's figures, where they compare.
    """
    shown = [row for row in rows if any(row.of(p) for p in row.protocols)]
    if not shown:
        return []
    columns = ("variant", "label", "protocol", "mAP", "low", "high")
    table: list[tuple[object, ...]] = []
    with drawing(0.42 * len(shown) + 0.75) as (figure, axes):
        for place, row in enumerate(shown):
            for shift, protocol in enumerate(row.protocols):
                mean, low, high = (row.of(protocol, v) for v in ("mean_ap", "low", "high"))
                if mean is None or low is None or high is None:
                    continue
                values = [100 * each.mean for each in (mean, low, high)]
                y = place + 0.02 + 0.17 * shift
                series = SERIES[shift]
                axes.plot(values[1:], [y, y], color=series.color, linewidth=0.9)
                style = {**series.line(), "linestyle": "none"}
                name = protocol if row is shown[0] else None
                axes.plot([values[0]], [y], label=name, **style)
                table.append((row.name, row.variant.label, protocol, *values))
            macro = row.macro()
            if macro:
                x = 100 * macro.mean
                name = "mean (Eq. 5)" if row is shown[0] else None
                style = {"color": SERIES[0].color, "linestyle": "none", "markersize": 9}
                axes.plot([x], [place + 0.19], marker="|", label=name, **style)
                table.append((row.name, row.variant.label, "macro", x, "", ""))
            if paper and row.variant.paper is not None:
                name = "paper" if row is shown[0] else None
                axes.plot(
                    [row.variant.paper], [place + 0.19], "x", color=SERIES[3].color, label=name
                )
                table.append((row.name, row.variant.label, "paper", row.variant.paper, "", ""))
            axes.text(
                0.0,
                place - 0.2,
                row.variant.label,
                fontsize=7,
                transform=axes.get_yaxis_transform(),
            )
        axes.set_ylim(len(shown) - 0.35, -0.55)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mAP (%), with 95 % intervals")
        legend_above(axes, columns=4)
        best = max((row for row in shown if row.macro()), key=_macro, default=None)
        summary = (
            f" Highest mean: {best.variant.label}, {100 * _macro(best):.1f} %." if best else ""
        )
        return [
            save(
                figure,
                folder,
                "ablation",
                title="mAP of each row",
                alt=f"mAP of {len(shown)} rows of the ablation by protocol.{summary}",
                caption="mAP of each row by protocol; lines are 95 % bootstrap intervals over "
                "query identities, the bar is the mean over protocols.",
                columns=columns,
                rows=table,
            )
        ]


def cmc_plots(
    found: Sequence[Mapping[str, Measurement]], protocols: Sequence[str], folder: Path
) -> list[Plot]:
    """CMC curves of some rows, a panel a protocol; nothing without a measurement."""
    protocols = [p for p in protocols if any(p in each for each in found)]
    if not protocols:
        return []
    table: list[tuple[object, ...]] = []
    ranks = np.arange(1, CMC_RANKS + 1)
    firsts = []
    with drawing(
        1.35 * len(protocols) + 0.55, nrows=len(protocols), sharex=True, squeeze=False
    ) as (
        figure,
        grid,
    ):
        for axes, protocol in zip(grid[:, 0], protocols, strict=True):
            for series, measured in zip(SERIES, found, strict=False):
                if protocol not in measured:
                    continue
                measurement = measured[protocol]
                curve = cmc(measurement, CMC_RANKS)
                name = measurement.row.variant.label
                axes.plot(ranks, 100 * curve, label=name, markevery=3, **series.line())
                table += [
                    (measurement.row.name, measurement.seed, protocol, rank, share)
                    for rank, share in zip(ranks.tolist(), curve.tolist(), strict=True)
                ]
                firsts.append(f"{name} {protocol} {100 * curve[0]:.0f} %")
            axes.text(0.99, 0.04, protocol, transform=axes.transAxes, ha="right", fontweight="bold")
            axes.set_ylabel("queries (%)")
            axes.set_ylim(top=101)
        grid[-1, 0].set_xlabel("rank of the first hit, at most")
        grid[-1, 0].set_xticks([1, 5, 10, 15, 20])
        legend_above(grid[0, 0], columns=1)
        return [
            save(
                figure,
                folder,
                "cmc",
                title="CMC curves",
                alt=f"Share of queries with a hit up to each rank. Rank 1: {'; '.join(firsts)}.",
                caption="Share of queries whose first hit is at this rank or before; the last row "
                "of each training.",
                columns=("variant", "seed", "protocol", "rank", "share"),
                rows=table,
            )
        ]


def cmc(measurement: Measurement, ranks: int) -> np.ndarray:
    """(ranks,) share of the queries with a positive whose first is at rank <= r + 1."""
    first = [rank for rank in measurement.content["per_query"]["first_rank"] if rank]
    shares: np.ndarray = (np.array(first)[:, None] <= np.arange(1, ranks + 1)).mean(axis=0)
    return shares


def _macro(row: Row) -> float:
    macro: Spread | None = row.macro()
    return macro.mean if macro else 0.0

"""Figures of training and tuning: curves of both stages (Fig. 3), the surface of re-ranking."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from reid.report.drawing import SERIES, Plot, drawing, legend_above, save
from reid.report.runs import Run


def stage1_plots(runs: Sequence[Run], folder: Path) -> list[Plot]:
    """Loss of stage 1 by epoch (Fig. 3a), a line a training; nothing where none ran."""
    shown = [run for run in runs if 1 in run.curves]
    if not shown:
        return []
    with drawing(2.2) as (figure, axes):
        for run, series in zip(shown, itertools.cycle(SERIES), strict=False):
            curve = run.curves[1]
            every = max(1, len(curve.epochs) // 8)
            axes.plot(curve.epochs, curve.loss, label=_name(run), markevery=every, **series.line())
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("loss")
        legend_above(axes)
        return [
            save(
                figure,
                folder,
                "training_stage1",
                title="Stage 1: loss",
                alt=f"Loss of stage 1 by epoch. {_ends(shown, 1)}",
                caption="Contrastive loss of the text contexts, mean over the steps of an epoch "
                "(the paper's Fig. 3a). Trainings that share stage 1 have one line."
                + _unfinished(shown, 1),
                columns=("training", "seed", "epoch", "loss"),
                rows=[
                    (run.training, run.seed, epoch, loss)
                    for run in shown
                    for epoch, loss in zip(run.curves[1].epochs, run.curves[1].loss, strict=True)
                ],
            )
        ]


def stage2_plots(runs: Sequence[Run], folder: Path) -> list[Plot]:
    """Accuracy and loss of stage 2 by epoch (Fig. 3b); nothing where none ran."""
    shown = [run for run in runs if 2 in run.curves]
    if not shown:
        return []
    with drawing(3.6, nrows=2, sharex=True) as (figure, (upper, lower)):
        for run, series in zip(shown, itertools.cycle(SERIES), strict=False):
            curve = run.curves[2]
            every = max(1, len(curve.epochs) // 8)
            percent = [100 * share for share in curve.accuracy]
            upper.plot(curve.epochs, percent, label=_name(run), markevery=every, **series.line())
            lower.plot(curve.epochs, curve.loss, markevery=every, **series.line())
        upper.set_ylabel("accuracy (%)")
        lower.set_ylabel("loss")
        lower.set_xlabel("epoch")
        lower.locator_params(axis="x", integer=True)
        legend_above(upper)
        return [
            save(
                figure,
                folder,
                "training_stage2",
                title="Stage 2: accuracy and loss",
                alt=f"Accuracy and loss of stage 2 by epoch. {_ends(shown, 2)}",
                caption="Accuracy of the identity classifier on training batches, and the whole "
                "loss (the paper's Fig. 3b)." + _unfinished(shown, 2),
                columns=("training", "seed", "epoch", "accuracy", "loss"),
                rows=[
                    (run.training, run.seed, *point)
                    for run in shown
                    for point in zip(
                        run.curves[2].epochs,
                        run.curves[2].accuracy,
                        run.curves[2].loss,
                        strict=True,
                    )
                ],
            )
        ]


def surface_plot(tuning: Mapping[str, Any], label: str, folder: Path) -> Plot:
    """mAP on held-out identities over (k1, k2) at the chosen lambda, and over lambda."""
    chosen, surface = tuning["chosen"], tuning["surface"]
    value = {(p["k1"], p["k2"], p["lambda_value"]): 100 * p["mAP"] for p in surface}
    k1, k2, lambdas = (sorted({triple[axis] for triple in value}) for axis in range(3))
    best = (chosen["k1"], chosen["k2"], chosen["lambda_value"])
    # Triples with k2 > k1 were not tried.
    grid = np.array([[value.get((a, b, best[2]), np.nan) for a in k1] for b in k2])
    plain = 100 * tuning["mAP_without_rerank"]
    height = 0.28 * len(k2) + 2.5
    with drawing(height, nrows=2, height_ratios=(0.28 * len(k2) + 0.6, 1.6)) as (figure, pair):
        upper, lower = pair
        _heat(upper, grid, k1, k2)
        place = (k1.index(best[0]) - 0.5, k2.index(best[1]) - 0.5)
        cell = Rectangle(place, 1, 1, fill=False, clip_on=False, linewidth=2.5)
        cell.set_edgecolor(SERIES[1].color)
        upper.add_patch(cell)
        upper.set_xlabel("k1")
        upper.set_ylabel("k2")
        upper.set_title(f"mAP (%) at λ = {best[2]:g}; outlined: chosen", loc="left")
        line = [(each, value[best[0], best[1], each]) for each in lambdas]
        lower.plot(*zip(*line, strict=True), **SERIES[0].line())
        lower.axhline(plain, color=SERIES[1].color, linestyle=SERIES[1].dashes, linewidth=1)
        right = {"transform": lower.get_yaxis_transform(), "ha": "right"}
        lower.text(0.99, plain, "without re-ranking", va="bottom", fontsize=7, **right)
        lower.margins(y=0.2)
        lower.set_title(f"mAP (%) at k1 = {best[0]}, k2 = {best[1]}", loc="left")
        lower.set_xlabel("λ, weight of the original distance")
        flat = tuning["flatness"]
        return save(
            figure,
            folder,
            f"tuning_{tuning['variant']}_seed{tuning['seed']}",
            title=f"Re-ranking, tuned: {label}",
            alt=f"mAP on held-out identities over the parameters of re-ranking. Chosen: "
            f"k1 {best[0]}, k2 {best[1]}, lambda {best[2]:g}, with {value[best]:.2f} %; without "
            f"re-ranking {plain:.2f} %.",
            caption=f"On {tuning['identities']} identities held out of training. Range over the "
            f"grid: {100 * flat['range']:.2f} points; "
            f"{100 * flat['share_within_half_a_point']:.0f} % of the triples lie within half a "
            "point of the best.",
            columns=("k1", "k2", "lambda", "mAP"),
            rows=[(*triple, mean) for triple, mean in value.items()],
        )


def _heat(axes: Axes, grid: np.ndarray, columns: Sequence[int], rows: Sequence[int]) -> None:
    low, high = np.nanmin(grid), np.nanmax(grid)
    edges = (np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5)
    axes.pcolormesh(*edges, grid, cmap="Grays", vmin=low - (high - low) / 4, vmax=high)
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), [str(each) for each in columns])
    axes.set_yticks(range(len(rows)), [str(each) for each in rows])
    for (row, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            dark = value > low + 0.45 * (high - low)
            axes.text(
                column, row, f"{value:.1f}", ha="center", va="center", fontsize=5.5,
                color="#fefefe" if dark else "#010203",
            )  # fmt: skip


def _name(run: Run) -> str:
    return run.training if run.seed == 1 else f"{run.training} (seed {run.seed})"


def _ends(shown: Sequence[Run], stage: int) -> str:
    said = []
    for run in shown:
        curve = run.curves[stage]
        text = f"{_name(run)}: loss {curve.loss[0]:.2f} to {curve.loss[-1]:.2f}"
        if curve.accuracy:
            text += f", accuracy {100 * curve.accuracy[0]:.0f} to {100 * curve.accuracy[-1]:.0f} %"
        said.append(text)
    return "; ".join(said) + "."


def _unfinished(shown: Sequence[Run], stage: int) -> str:
    left = [
        f"{_name(run)} {len(run.curves[stage].epochs)} of {run.curves[stage].planned}"
        for run in shown
        if not run.curves[stage].complete
    ]
    return f" Unfinished, epochs: {', '.join(left)}." if left else ""

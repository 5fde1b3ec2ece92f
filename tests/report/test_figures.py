"""Figures: told apart without color, readable, and the same look for a training in each."""

import re
from itertools import combinations

import pandas as pd
import pytest

from reid.report.collect import ablation_rows, training_records
from reid.report.figures import (
    SERIES,
    Look,
    ablation_plot,
    canvas,
    cmc_plot,
    legend_above,
    training_plots,
    tuning_plot,
)
from reid.report.page import TEMPLATES
from tests.report.home import csv_rows, parsed


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [1, 2], ids=["light", "dark"])
def test_colors_can_be_read(theme):
    """WCAG AA: 4.5 for text, 3 for lines, on the page and on its cards."""
    style = (TEMPLATES / "style.css").read_text()
    pairs = re.findall(r"--([a-z]+(?:-\d)?): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    colors = {pair[0]: pair[theme] for pair in pairs}
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "accent"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    for text in ("hit", "miss"):
        assert contrast(colors[text], colors["paper"]) >= 4.5, text
    for place, _ in enumerate(SERIES):
        assert contrast(colors[f"series-{place}"], colors["paper"]) >= 3


def test_lines_differ_without_color():
    for series in SERIES:
        assert contrast(series["color"], "#ffffff") >= 3
    for one, other in combinations(SERIES, 2):
        assert one["marker"] != other["marker"]
        assert one["linestyle"] != other["linestyle"]


def test_a_training_has_one_color_in_every_figure(results, tmp_path):
    look = Look(tmp_path, ["later", "mean", "pooled"])
    rows = [row for row in ablation_rows(parsed()) if row.name == "mean"]
    plots = [
        *ablation_plot(rows, look, paper=True),
        *cmc_plot(list(rows[0].first().values()), look),
        *training_plots([r for r in training_records(parsed()) if r.training == "mean"], look),
    ]
    assert len(plots) == 4
    for plot in plots:
        assert set(re.findall(r"var\(--series-(\d)\)", plot.svg)) == {"1"}, plot.name


def test_the_ablation_is_drawn_as_in_the_table(results, tmp_path):
    rows = ablation_rows(parsed())
    list(ablation_plot(rows, Look(tmp_path, ["later", "mean", "pooled"]), paper=True))
    drawn = {(r["variant"], r["protocol"]): r for r in csv_rows(tmp_path / "ablation.csv")}
    for row in csv_rows(results.table("csv")):
        if row["paper"] and row["variant"] != "later":
            assert drawn[row["variant"], "paper"]["mAP"] == row["paper"]
        for (variant, place), line in drawn.items():
            if variant == row["variant"] and place not in ("macro", "paper"):
                for name, column in {"mAP": "mean_ap", "low": "low", "high": "high"}.items():
                    assert float(line[name]) == pytest.approx(
                        float(row[f"{place}_{column}"]), abs=1e-4
                    )


def test_re_ranking_is_drawn_through_the_chosen_triple(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.plot", lambda _, x, y, **__: drawn.append([*zip(x, y, strict=True)])
    )
    surface = [
        {"k1": k1, "k2": k2, "lambda_value": value, "mAP": (100 * k1 + 10 * k2 + value) / 100}
        for k1 in (2, 3) for k2 in (1, 2) for value in (4, 5)
    ]  # fmt: skip
    tuning = {
        "surface": surface, "chosen": {"k1": 3, "k2": 1, "lambda_value": 5}, "mAP": 1, "seed": 1,
        "mAP_without_rerank": 0, "flatness": {"range": 1, "share_within_half_a_point": 1},
        "identities": 2, "variant": "tuned",
    }  # fmt: skip
    plot = tuning_plot(tuning, "+ Tuned", "mean", Look(tmp_path, ["mean"]))
    assert "+ Tuned" in plot.title
    assert [[(x, round(y)) for x, y in line] for line in drawn] == [
        [(2, 215), (3, 315)], [(1, 315), (2, 325)], [(4, 314), (5, 315)]
    ]  # fmt: skip


def test_any_label_is_in_the_legend(tmp_path):
    with canvas(2) as (figure, axes):
        axes.plot([1, 2], label="_a $x_$ b")
        legend_above(axes)
    text = {"title": "", "alt": "", "caption": ""}
    assert "_a $x_$ b" in Look(tmp_path, []).save(figure, "some", pd.DataFrame(), **text).svg

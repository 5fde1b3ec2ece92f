"""Figures fit for a paper: one column wide, readable in gray, each with the csv behind it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reid.files import replacing, write_text

WIDTH = 3.3
"""Inches: one column of a two-column paper."""
INK, RULE = "#1b1c1d", "#c9cacb"
_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
STYLE: dict[Any, Any] = {
    **dict.fromkeys(_INKED, INK),
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "text.parse_math": False,  # a label may hold "$"
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
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
HOLLOW: dict[str, Any] = {"markerfacecolor": "none"}
"""Of a line that stands beside another one of the same training."""


@dataclass(frozen=True)
class Plot:
    """A finished figure: what the page shows and says of it."""

    name: str
    title: str
    alt: str
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
        return SERIES[list(self.trainings).index(training) % len(SERIES)]


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
            beside: dict[str, Any] = {"transform": axes.transAxes, "rotation": 270, "va": "center"}
            axes.text(1.01, 0.5, protocol, fontweight="bold", **beside)
        yield figure, dict(zip(protocols, grid[:, 0], strict=True))


def save(
    figure: Figure, path: Path, frame: pd.DataFrame, *, title: str, alt: str, caption: str
) -> Plot:
    """Write a figure to `path` as .svg, .pdf and .csv; equal numbers give equal bytes.

    frame: what was drawn. alt: what a reader who does not see it must know.
    """
    name, folder = path.name, path.parent
    table = frame.to_csv(index=False, lineterminator="\n")
    write_text(folder / f"{name}.csv", table)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # one layout serves both files
        for suffix, date in (("svg", "Date"), ("pdf", "CreationDate")):
            with replacing(folder / f"{name}.{suffix}") as temporary:
                undated = {date: None}
                figure.savefig(temporary, format=suffix, metadata=undated, transparent=True)
    svg = inline((folder / f"{name}.svg").read_text(encoding="utf-8"), alt)
    return Plot(name, title, alt, caption, svg, table)


def inline(svg: str, alt: str) -> str:
    """An svg file as an element of the page: named for screen readers, in the page's colors."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", body, count=2)
    body = body.replace("'DejaVu Sans'", "var(--font)")
    for place, series in enumerate(SERIES):
        body = body.replace(series["color"], f"var(--series-{place})")
    body = body.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def legend_above(axes: Axes, columns: int = 2) -> None:
    """The legend over the axes, where it hides nothing: of every line that was given a label."""
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_child")]
    labels = [str(line.get_label()) for line in lines]
    place: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (-0.02, 1.0),
        "borderaxespad": 0.2,
    }
    axes.legend(lines, labels, ncols=columns, handlelength=2.6, columnspacing=1.2, **place)


def horizontal(axes: Axes, y: float, text: str) -> None:
    """A dotted line across the axes with its name, for comparison."""
    axes.axhline(y, color=INK, linestyle=(0, (1, 1.2)), linewidth=1)
    right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right"}
    axes.text(0.99, y, text, va="bottom", fontsize=7, **right)

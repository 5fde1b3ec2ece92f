"""Figures fit for a paper: one column wide, readable in gray, each with the csv behind it."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reid.files import replacing, write_text

WIDTH = 3.3
"""Inches: one column of a two-column paper."""
INK, RULE = "#1b1c1d", "#c9cacb"

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # a paper takes no bitmap fonts
    "svg.fonttype": "none",  # text stays text
}


@dataclass(frozen=True)
class Series:
    """How one line is drawn: color, dashes and marker each tell it from the others."""

    color: str
    dashes: Any
    marker: str
    filled: bool

    def line(self) -> dict[str, Any]:
        """Keyword arguments of a matplotlib line."""
        return {
            "color": self.color,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markerfacecolor": self.color if self.filled else "none",
            "markeredgewidth": 0.9,
        }


SERIES = (
    Series("#1f3b73", "solid", "o", True),
    Series("#c96f1e", (0, (4, 1.5)), "s", False),
    Series("#3d8f68", (0, (5, 1.2, 1, 1.2)), "^", True),
    Series("#8a8c90", (0, (1, 1.2)), "D", False),
    Series("#8a4fa3", (0, (2, 1)), "v", True),
    Series("#5b6b2f", (0, (6, 1, 1, 1, 1, 1)), "P", False),
)


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


@contextmanager
def drawing(height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure one column wide and `height` inches high, with its axes, in the house style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(**subplots)


def save(
    figure: Figure,
    folder: Path,
    name: str,
    *,
    title: str,
    alt: str,
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> Plot:
    """Write `name` as svg, pdf and csv into `folder`; equal numbers give equal bytes.

    columns, rows: what was drawn. alt: what a reader who does not see it must know.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(folder / f"{name}.csv", table.getvalue())
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # one layout serves both files
        for suffix, metadata in undated.items():
            with replacing(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata, transparent=True)
    svg = inline((folder / f"{name}.svg").read_text(encoding="utf-8"), alt)
    return Plot(name, title, alt, caption, svg, table.getvalue())


def inline(svg: str, alt: str) -> str:
    """An svg file as an element of the page: named for screen readers, in the page's colors."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", body, count=2)
    body = body.replace("'DejaVu Sans'", "var(--font)")
    for place, series in enumerate(SERIES):
        body = body.replace(series.color, f"var(--series-{place})")
    body = body.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def legend_above(axes: Axes, columns: int = 2) -> None:
    """The legend over the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2,
        handlelength=2.6, columnspacing=1.2,
    )  # fmt: skip


def panel(axes: Axes, text: str) -> None:
    """Name a panel, beside it at the right, where no curve goes."""
    beside = axes.transAxes
    axes.text(1.01, 0.5, text, transform=beside, rotation=270, va="center", fontweight="bold")

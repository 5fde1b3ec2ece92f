"""From what was found to HTML: the template, and how numbers are written in it."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reid.data.layout import Tracklet
from reid.progress import duration

TEMPLATES = Path(__file__).parent / "templates"


def render(content: Mapping[str, Any]) -> str:
    """The page. Text is escaped; the figures are HTML already. A name that is missing raises."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "digits": digits,
        "duration": duration,
        "scene": scene,
        "csv_uri": csv_uri,
    }
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(style=style, **content)


def count(value: float | None) -> str:
    """A large number in thousands, millions or thousand millions; a dash for None."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {name}"
    return f"{value:g}"


def digits(value: float | None, places: int = 2) -> str:
    """A number with so many decimal places; a dash for None."""
    return "–" if value is None else f"{value:,.{places}f}"  # noqa: RUF001 - a dash


def scene(tracklet: Tracklet) -> str:
    """Where a tracklet was seen from, in a few words."""
    if tracklet.view == "ground":
        return "ground"
    if math.isnan(tracklet.altitude):
        return f"aerial, session {tracklet.session}"
    place = f"{tracklet.altitude:g} m up, {tracklet.distance:g} m away, {tracklet.angle:g}°"
    return f"{place}, session {tracklet.session}"


def csv_uri(text: str) -> str:
    """A csv as an address that holds it."""
    return f"data:text/csv;base64,{base64.b64encode(text.encode()).decode('ascii')}"

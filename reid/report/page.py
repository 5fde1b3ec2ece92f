"""From what was found to HTML: the template, and how numbers are written in it."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reid.data.layout import Tracklet
from reid.progress import duration

DASH = "\N{EN DASH}"
"""What stands for a number that is not known."""

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
        return DASH
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {name}"
    return f"{value:g}"


def digits(value: float | None, places: int = 2) -> str:
    """A number with so many decimal places; a dash for None."""
    return DASH if value is None else f"{value:,.{places}f}"


def scene(tracklet: Tracklet) -> str:
    """Where a tracklet was seen from, in a few words: what its layout tells."""
    known = (
        (tracklet.altitude, "m up"),
        (tracklet.distance, "m away"),
        (tracklet.angle, "degrees"),
    )
    said = [f"{value:g} {unit}" for value, unit in known if not math.isnan(value)]
    if not said and tracklet.view:
        said.append(tracklet.view)
    if tracklet.session is not None:
        said.append(f"session {tracklet.session}")
    elif tracklet.camera or not said:
        said.append(f"camera {tracklet.camera}")
    return ", ".join(said)


def csv_uri(text: str) -> str:
    """A csv as an address that holds it."""
    return f"data:text/csv;base64,{base64.b64encode(text.encode()).decode('ascii')}"

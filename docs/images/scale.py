"""The picture of the README: the same people from the ground and from further and further away.

    python docs/images/scale.py docs/images/scale.png

Everybody in it is rendered, as in the embedded benchmark.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from reid.config import Demo
from reid.files import replacing
from reid.synthetic.benchmark import person_of
from reid.synthetic.scene import CAPTURE_POINTS, CapturePoint, draw_take, film

PEOPLE = (4, 5)
POINTS = (None, *(CAPTURE_POINTS[number - 1] for number in (1, 3, 9, 5, 11, 12, 18)))
WIDE, HIGH, MARGIN = 10.7, 6.5, 0.3
"""Size of the picture and of what stands left of it, inches."""
ENLARGED = 2.0
"""Height of an enlarged crop, inches; its width is half of it, as the network sees it."""


def crop(pid: int, point: CapturePoint | None) -> NDArray[np.uint8]:
    """A frame (h, w, 3) of a person from the ground (None) or from a capture point."""
    rng = np.random.default_rng((1, pid, 0 if point is None else round(10 * point.slant)))
    take = draw_take(rng, session=0, point=point)
    return next(iter(film(person_of(Demo(), pid), 0, take, 1, rng)))


def main() -> None:
    """Draw the picture into the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("png", type=Path)
    out = parser.parse_args().png
    crops = [[crop(pid, point) for point in POINTS] for pid in PEOPLE]
    scale = 1.45 / max(len(frame) for frame in crops[0])
    figure = Figure(figsize=(WIDE, HIGH), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    step = (WIDE - MARGIN) / len(POINTS)
    for column, point in enumerate(POINTS):
        middle = MARGIN + (column + 0.5) * step
        pixels = crops[0][column]
        paste(figure, pixels, middle, 4.5, scale * pixels.shape[1], scale * len(pixels))
        for row, people in enumerate(crops):
            paste(figure, people[column], middle, 2.17 - 2.1 * row, ENLARGED / 2, ENLARGED)
        title = "ground" if point is None else f"{point.height:g} m up\n{point.distance:g} m away"
        write(figure, middle, 6.08, title, va="bottom", fontsize=9)
        size = f"{pixels.shape[1]} x {len(pixels)} px"
        write(figure, middle, 4.46, size, va="top", fontsize=8, color="#444444")
    for y, text in ((5.2, "as recorded"), (2.12, "as the network gets it")):
        write(figure, 0.14, y, text, va="center", rotation=90, fontsize=9)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
    with replacing(out) as temporary:
        picture.quantize(palette=palette).save(temporary, "PNG", optimize=True)


def paste(
    figure: Figure, pixels: NDArray[np.uint8], middle: float, bottom: float, w: float, h: float
) -> None:
    """Draw a crop w x h inches large, centered at `middle` inches from the left."""
    axes = figure.add_axes(((middle - w / 2) / WIDE, bottom / HIGH, w / WIDE, h / HIGH))
    axes.imshow(pixels, aspect="auto", interpolation="bicubic")
    axes.set_axis_off()


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text centered at x, at y, in inches."""
    figure.text(x / WIDE, y / HIGH, text, ha="center", **style)


if __name__ == "__main__":
    main()

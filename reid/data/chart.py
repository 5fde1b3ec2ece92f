"""Histograms by group as a picture, with nothing but Pillow."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

_ROW, _BAR, _LEFT, _TOP, _GAP = 30, 34, 90, 40, 40
_INK, _FAINT, _FILL = "#222222", "#dddddd", "#4477aa"


def draw_histograms(
    panels: Sequence[tuple[str, Sequence[int], Mapping[str, np.ndarray]]], groups: Sequence[str]
) -> Image.Image:
    """One panel beside the other, one row a group: (title, bin edges, counts by group).

    Bars are shares of the group's total; the total stands at the end of the row.
    """
    present = [group for group in groups if any(group in counts for *_, counts in panels)]
    widths = [_LEFT + _BAR * (len(edges) - 1) + 60 for _, edges, _ in panels]
    size = (sum(widths) + _GAP * len(panels), _TOP + _ROW * len(present) + 30)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    left = 10
    for (title, edges, counts), width in zip(panels, widths, strict=True):
        start = left + _LEFT
        draw.text((start, 10), title, fill=_INK)
        for row, group in enumerate(present):
            base = _TOP + _ROW * (row + 1)
            draw.text((left, base - 14), group, fill=_INK)
            draw.line((start, base, start + _BAR * (len(edges) - 1), base), fill=_FAINT)
            own = counts.get(group, np.zeros(len(edges) - 1))
            for place, share in enumerate(own / max(1, own.sum())):
                if share:
                    x = start + _BAR * place
                    top = base - max(1, round(share * (_ROW - 4)))
                    draw.rectangle((x + 1, top, x + _BAR - 2, base), fill=_FILL)
            draw.text((start + _BAR * (len(edges) - 1) + 6, base - 14), f"{own.sum():,}", fill=_INK)
        for place, edge in enumerate(edges[:-1]):
            draw.text((start + _BAR * place, size[1] - 24), f"{edge}", fill=_INK)
        left += width + _GAP
    return image

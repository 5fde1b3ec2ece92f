"""Pillow's bicubic resize, to the last bit, straight into a planar frame of a batch.

Pillow's arithmetic: cubic convolution with a = -0.5, its support widened when shrinking,
coefficients as integers of 22 fractional bits; one axis, rounded and clipped to uint8, then the
other. Pillow 13 takes the columns first when the height shrinks by more than twice what the
width does, else the rows (earlier versions: always the rows; the tests hold this file against
the Pillow that is installed). What makes it fast here: in both passes vectors run along
contiguous memory, over the rows of a transposed copy, then over the columns.
"""

from functools import lru_cache

import numba
import numpy as np

_BITS = 22
_HALF = 1 << (_BITS - 1)


@lru_cache(maxsize=4096)
def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First source position and number of taps (int64) and coefficients (int32, padded) by target
    position, for one axis of `source` pixels resized to `target`.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    centers = (np.arange(target) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + support + 0.5).astype(np.int64), source)
    offsets = np.arange(int(np.ceil(support)) * 2 + 1)
    weights = _cubic((offsets + (first - centers)[:, None] + 0.5) * (1.0 / stretch))
    weights[offsets >= (end - first)[:, None]] = 0.0
    total = np.zeros(target)
    for tap in offsets:  # one after the other, as Pillow adds them: the last bit matters
        total += weights[:, tap]
    scaled = weights / total[:, None] * (1 << _BITS)
    coefficients = (scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32)
    return first, end - first, coefficients


def _cubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.5, np.abs(x)
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    curve: np.ndarray = np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))
    return curve


def prepare(height: int, width: int, *, largest: int = 300) -> None:
    """Compute the coefficients for crops up to `largest` pixels and compile the kernel.

    Called before loading processes are forked, so that they share both.
    """
    for size in range(1, largest + 1):
        _taps(size, height)
        _taps(size, width)
    resize_into(np.zeros((2, 2, 3), np.uint8), np.empty((3, height, width), np.uint8))


def resize_into(image: np.ndarray, out: np.ndarray) -> None:
    """Resize uint8 (h, w, 3) into `out`, uint8 (3, H, W), both contiguous.

    Equal to `Image.resize((W, H), BICUBIC)` in every gray level.
    """
    height, width = out.shape[1:]
    _resize(image, out, *_taps(image.shape[1], width), *_taps(image.shape[0], height))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _down(lines, first, count, coefficients, out):  # type: ignore[no-untyped-def]
    """Each line of `out` is a weighted sum of lines, rounded and clipped.

    Products go through an int32 array: numba would widen int32 scalars to 64 bits.
    """
    size = lines.shape[1]
    total = np.empty(size, np.int32)
    for row in range(len(out)):
        weight, line = coefficients[row, 0], lines[first[row]]
        for i in range(size):
            total[i] = line[i] * weight + _HALF
        for tap in range(1, count[row]):
            weight, line = coefficients[row, tap], lines[first[row] + tap]
            for i in range(size):
                total[i] += line[i] * weight
        target = out[row]
        for i in range(size):
            target[i] = min(max(total[i] >> _BITS, 0), 255)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _across(plane, first, count, coefficients, out):  # type: ignore[no-untyped-def]
    """The same along each line: `_down` between two transpositions."""
    rows, columns = plane.shape
    turned = np.empty((columns, rows), np.uint8)
    for y in range(rows):
        for x in range(columns):
            turned[x, y] = plane[y, x]
    resized = np.empty((out.shape[1], rows), np.uint8)
    _down(turned, first, count, coefficients, resized)
    for y in range(rows):
        for x in range(out.shape[1]):
            out[y, x] = resized[x, y]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resize(  # type: ignore[no-untyped-def]
    image, out, first_x, count_x, coefficients_x, first_y, count_y, coefficients_y
):
    rows, columns = image.shape[:2]
    height, width = out.shape[1:]
    down_first = rows > height and 2 * (columns - width) < rows - height
    plane = np.empty((rows, columns), np.uint8)
    between = np.empty((height, columns) if down_first else (rows, width), np.uint8)
    for channel in range(3):
        for y in range(rows):
            for x in range(columns):
                plane[y, x] = image[y, x, channel]
        if down_first:
            _down(plane, first_y, count_y, coefficients_y, between)
            _across(between, first_x, count_x, coefficients_x, out[channel])
        else:
            _across(plane, first_x, count_x, coefficients_x, between)
            _down(between, first_y, count_y, coefficients_y, out[channel])

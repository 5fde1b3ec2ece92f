"""The sensor: blur of lens and shutter, and the area of a pixel."""

import math

import numpy as np
from numpy.typing import NDArray

from reid.compiled import njit

Array = NDArray[np.float64]


def kernel(samples: int, sigma: float) -> Array:
    """Point spread of lens, shutter and pixel along one axis, (k,) over samples, with sum 1.

    `sigma` is the blur in pixels. k is an odd number of pixels, so a kernel has a middle one.
    """
    reach = math.ceil(2.5 * sigma)
    offsets = (np.arange((2 * reach + 1) * samples) + 0.5) / samples - reach - 0.5
    # A pixel integrates over its area: average the Gaussian over a grid of its samples.
    grid = (np.arange(samples) + 0.5) / samples - 0.5
    spread = np.exp(-0.5 * ((offsets[:, None] - grid) / sigma) ** 2).sum(axis=1)
    return np.asarray(spread / spread.sum())


@njit(cache=True, nogil=True)
def expose(samples: Array, down: Array, right: Array, stride: int) -> Array:
    """Pixels of a sensor: samples weighted by the kernels of both axes, `stride` to a pixel.

    samples (H * stride, W * stride, 3) become (H - 2a, W - 2b, 3), a and b the pixels that the
    kernels reach beyond their middle one.
    """
    tall, wide = len(down), len(right)
    height = (samples.shape[0] - tall) // stride + 1
    width = (samples.shape[1] - wide) // stride + 1
    rows = np.zeros((height, samples.shape[1], 3))
    for i in range(height):
        for a in range(tall):
            weight = down[a]
            for j in range(samples.shape[1]):
                for c in range(3):
                    rows[i, j, c] += weight * samples[i * stride + a, j, c]
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            for b in range(wide):
                weight = right[b]
                for c in range(3):
                    out[i, j, c] += weight * rows[i, j * stride + b, c]
    return out

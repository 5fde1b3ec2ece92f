"""float16 rounding of float32 numbers in compiled kernels, which have no float16."""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def round_half(value: Any) -> Any:  # pragma: no cover - compiled
    """The nearest float16 of a float32 in [0, 2], ties to even, without float16 arithmetic."""
    bits = np.float32(value).view(np.int32)
    bits = np.int32((bits + np.int32(0xFFF) + ((bits >> np.int32(13)) & np.int32(1))) & ~0x1FFF)
    normal = np.int32(bits).view(np.float32)
    # Below 2^-14 float16 has a fixed step of 2^-24, which is that of float32 in [0.5, 1).
    subnormal = (value + np.float32(0.5)) - np.float32(0.5)
    return normal if value >= np.float32(2.0**-14) else subnormal

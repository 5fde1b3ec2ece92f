"""From grey levels to what the network sees, in one pass over the memory."""

import math

import numba
import numpy as np
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(frames: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32: over 255, minus ImageNet's mean, over its deviation.

    In two operations instead of three: within 5e-7 of those, far below a grey level (1.7e-2).
    """
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    factors, offsets = 1 / (255 * std), mean / std
    if frames.device.type == "cpu":
        output = torch.empty(frames.shape, dtype=torch.float32)
        *clips, channels, height, width = frames.shape
        planes = frames.reshape(math.prod(clips), channels, height * width)
        _scale(planes.numpy(), factors.numpy(), offsets.numpy(), output.view(planes.shape).numpy())
        return output
    factors, offsets = (values.to(frames.device).view(3, 1, 1) for values in (factors, offsets))
    return frames.to(torch.float32).mul_(factors).sub_(offsets)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _scale(planes, factors, offsets, output):  # type: ignore[no-untyped-def]
    """Planes, uint8 (N, 3, pixels), times a factor, less an offset of their channel."""
    for n in range(len(planes)):
        for channel in range(3):
            source, target = planes[n, channel], output[n, channel]
            factor, offset = factors[channel], offsets[channel]
            for i in range(len(source)):
                target[i] = np.float32(source[i]) * factor - offset

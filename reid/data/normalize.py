"""From gray levels to what the network sees, in one pass over the memory."""

import math

import numba
import numpy as np
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(frames: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32: over 255, minus ImageNet's mean, over its deviation.

    In two operations instead of three: within 5e-7 of those, far below a gray level (1.7e-2).
    """
    if frames.device.type != "cpu":
        return normalize_batched(frames)
    *clips, channels, height, width = frames.shape
    planes = frames.reshape(math.prod(clips), channels, height * width)
    output = torch.empty(planes.shape, dtype=torch.float32)
    factors, offsets = _constants()
    _scale(planes.numpy(), factors.numpy(), offsets.numpy(), output.numpy())
    return output.view(frames.shape)


def normalize_batched(frames: Tensor) -> Tensor:
    """`normalize` in operations of the whole batch, on any device."""
    factors, offsets = (values.to(frames.device).view(3, 1, 1) for values in _constants())
    return frames.to(torch.float32).mul_(factors).sub_(offsets)


def _constants() -> tuple[Tensor, Tensor]:
    """What a gray level is multiplied by, and what is then taken away, by channel."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return 1 / (255 * std), mean / std


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _scale(planes, factors, offsets, output):  # type: ignore[no-untyped-def]
    """Planes, uint8 (N, 3, pixels), times a factor, less an offset of their channel."""
    for n in range(len(planes)):
        for channel in range(3):
            source, target = planes[n, channel], output[n, channel]
            factor, offset = factors[channel], offsets[channel]
            for i in range(len(source)):
                target[i] = np.float32(source[i]) * factor - offset

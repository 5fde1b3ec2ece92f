"""Color jitter with its own factors for every frame of a batch, on any device.

The arithmetic is that of torchvision's `adjust_*` on uint8 tensors (each operation ends in whole
gray levels), with factors of its own for every frame. On the CPU a kernel per frame; elsewhere one
pass over the frames that have the same operation at the same place of their random order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid.config import ColorJitter
from reid.data import jitter_cpu

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
STREAM = 2
"""Of random numbers of a clip's seed; the other transforms have others (reid.data.augment)."""


@dataclass(frozen=True)
class Jitter:
    """Parameters for N frames, drawn on the CPU."""

    orders: np.ndarray
    """int64 (N, 4): which operation comes first, second, ..."""
    factors: np.ndarray
    """float64 (N, 4): brightness, contrast, saturation factors, and the hue shift in turns."""


def of_clip(options: ColorJitter, frames: int, seed: int) -> Jitter:
    """Parameters of the frames of one clip, all the same with `per: clip`."""
    rng = np.random.default_rng([seed, STREAM])
    if options.per == "frame":
        return draw(options, frames, rng)
    one = draw(options, 1, rng)
    return Jitter(one.orders.repeat(frames, axis=0), one.factors.repeat(frames, axis=0))


def on_crop(
    pixels: np.ndarray, parameters: Jitter, number: int, options: ColorJitter
) -> np.ndarray:
    """Jittered copy of frame `number` of a clip as decoded, uint8 (h, w, 3)."""
    planes = np.ascontiguousarray(pixels.reshape(-1, 3).T)[None]
    row = slice(number, number + 1)
    jitter_cpu.apply(planes, parameters.orders[row], parameters.factors[row], active(options))
    return np.ascontiguousarray(planes[0].T).reshape(pixels.shape)


def active(options: ColorJitter) -> np.ndarray:
    """Which operations have a strength, bool (4,)."""
    return np.array([options.brightness, options.contrast, options.saturation, options.hue]) > 0


def draw(options: ColorJitter, count: int, rng: np.random.Generator) -> Jitter:
    """Parameters of `count` frames: factors from U[max(0, 1 - s), 1 + s], hue from U[-h, h]."""
    strengths = np.array([options.brightness, options.contrast, options.saturation, options.hue])
    low = np.maximum(0.0, 1.0 - strengths)
    high = 1.0 + strengths
    low[HUE], high[HUE] = -options.hue, options.hue
    factors = rng.uniform(low, high, size=(count, 4))
    orders = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    return Jitter(orders, factors)


def apply(frames: Tensor, parameters: Jitter, options: ColorJitter) -> Tensor:
    """Jittered copy of uint8 frames (N, 3, H, W); operations of strength 0 are left out."""
    frames = frames.clone(memory_format=torch.contiguous_format)
    if frames.device.type == "cpu":
        pixels = frames.numpy().reshape(len(frames), 3, -1)
        jitter_cpu.apply(pixels, parameters.orders, parameters.factors, active(options))
    else:
        apply_batched(frames, parameters, active(options))
    return frames


def apply_batched(frames: Tensor, parameters: Jitter, active: np.ndarray) -> None:
    """`apply`, in place, in operations of whole batches of frames."""
    for place in range(4):
        for operation, adjust in enumerate((_brightness, _contrast, _saturation, _hue)):
            mine = np.flatnonzero(parameters.orders[:, place] == operation)
            if not active[operation] or not len(mine):
                continue
            rows = torch.from_numpy(mine).to(frames.device)
            factors = torch.from_numpy(parameters.factors[mine, operation]).to(frames.device)
            frames[rows] = adjust(frames[rows], factors.view(-1, 1, 1, 1))


def _brightness(frames: Tensor, factors: Tensor) -> Tensor:
    return (frames * factors.float()).clamp_(0, 255).to(torch.uint8)


def _contrast(frames: Tensor, factors: Tensor) -> Tensor:
    return _blend(frames, _gray(frames).mean(dim=(1, 2, 3), keepdim=True), factors)


def _saturation(frames: Tensor, factors: Tensor) -> Tensor:
    return _blend(frames, _gray(frames), factors)


def _blend(frames: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    blended = torch.addcmul(frames * factors.float(), other, (1 - factors).float())
    return blended.clamp_(0, 255).to(torch.uint8)


def _gray(frames: Tensor) -> Tensor:
    red, green, blue = frames[:, 0:1], frames[:, 1:2], frames[:, 2:3]
    gray: Tensor = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()
    return gray


def _hue(frames: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue: RGB to HSV, shift H, back by channel = V - V S max(0, min(k, 4 - k, 1))."""
    image = frames.float().div_(255)
    low, value = torch.aminmax(image, dim=1, keepdim=True)
    spread = value - low
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    safe = torch.where(spread == 0, 1.0, spread)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = sixth + 6 * shifts.float()
    offsets = torch.tensor([5.0, 3.0, 1.0], device=image.device).view(1, 3, 1, 1)
    k = (sixth + offsets).remainder_(6.0)
    turned = value - spread * torch.minimum(k, 4 - k).clamp_(0, 1)
    return turned.mul_(255 + 1.0 - 1e-3).to(torch.uint8)

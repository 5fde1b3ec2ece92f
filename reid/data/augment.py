"""From gray levels to what the network sees: augmentation and normalization of batches of clips.

On the CPU or the GPU (MODEL 2; paper 3.2.5, 4.2), in this order: (bicubic resize, in the dataset)
-> pad and crop -> color jitter -> flip -> float -> ImageNet normalization -> random erasing. With
`color_jitter.place: on_crop` the dataset applies the jitter, before the resize. All random numbers
come from the clip's own seed, one stream per transform, so they depend neither on the rest of the
batch, nor on the device, nor on which other transforms are on.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from reid.config import Augment, ColorJitter

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
ERASE_FILL = (0.4914, 0.4822, 0.4465)
"""Put in after normalization, as released."""
ERASE_AREA = (0.02, 0.4)
ERASE_ASPECT = (0.3, 1 / 0.3)
_ERASE_ATTEMPTS = 100

_CROP, _JITTER, _FLIP, _ERASE = 1, 2, 3, 4  # streams of random numbers of a clip's seed


def normalize(frames: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32: over 255, minus ImageNet's mean, over its deviation."""
    scaled = F.to_dtype(frames, torch.float32, scale=True)
    normalized: Tensor = F.normalize(scaled, MEAN, STD, inplace=True)
    return normalized


def augment(frames: Tensor, *, options: Augment, seeds: Sequence[int]) -> Tensor:
    """Augment and normalize clips: uint8 (B, T, 3, H, W) to float32 of the same shape.

    `seeds` holds one non-negative seed per clip. Flip, crop and the erasing decision and place
    are one per clip; the erased size is one per frame; jitter as `options.color_jitter.per`.
    """
    if len(seeds) != len(frames):
        raise ValueError(f"{len(seeds)} seeds for {len(frames)} clips")
    if options.pad:
        frames = _pad_and_crop(frames, options.pad, seeds)
    if options.color_jitter.active and options.color_jitter.place == "after_resize":
        drawn = [draw_jitter(options.color_jitter, frames.shape[1], seed) for seed in seeds]
        frames = jitter(frames.flatten(0, 1), np.concatenate(drawn)).view_as(frames)
    flipped = [_rng(seed, _FLIP).random() < options.flip for seed in seeds]
    mirrored = torch.tensor(flipped, device=frames.device).view(-1, 1, 1, 1, 1)
    output = normalize(torch.where(mirrored, frames.flip(-1), frames))
    if options.erase:
        _erase(output, options.erase, seeds)
    return output


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def _pad_and_crop(frames: Tensor, pad: int, seeds: Sequence[int]) -> Tensor:
    """Black border of `pad` pixels, then a random crop of the old size: a shift per clip."""
    height, width = frames.shape[-2:]
    padded = F.pad(frames, [pad] * 4)
    crops = []
    for clip, seed in zip(padded, seeds, strict=True):
        top, left = (pad - shift for shift in _rng(seed, _CROP).integers(-pad, pad + 1, size=2))
        crops.append(clip[..., top : top + height, left : left + width])
    return torch.stack(crops)


def draw_jitter(options: ColorJitter, frames: int, seed: int) -> np.ndarray:
    """Random steps of color jitter for the frames of one clip, the same for all with `per: clip`.

    float64 (frames, K, 2): of each frame the K operations with a strength, in their random order,
    as a number (an index into `_OPERATIONS`) and a factor. Factors are from
    U[max(0, 1 - s), 1 + s], the shift of the hue, in turns, from U[-h, h].
    """
    rng = _rng(seed, _JITTER)
    strengths = np.array([options.brightness, options.contrast, options.saturation, options.hue])
    low, high = np.maximum(0.0, 1.0 - strengths), 1.0 + strengths
    low[3], high[3] = -options.hue, options.hue
    count = frames if options.per == "frame" else 1
    factors = rng.uniform(low, high, size=(count, 4))
    orders = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    steps = np.stack([orders, np.take_along_axis(factors, orders, axis=1)], axis=2)
    steps = steps[strengths[orders] > 0].reshape(count, np.count_nonzero(strengths), 2)
    repeated: np.ndarray = steps.repeat(frames // count, axis=0)
    return repeated


def jitter(frames: Tensor, steps: np.ndarray) -> Tensor:
    """Jittered copy of uint8 frames (N, 3, H, W); `steps` (N, K, 2) as from `draw_jitter`.

    The arithmetic is that of torchvision's `adjust_*` on uint8, which take one factor a call: a
    training batch of 384 frames would be 34,000 calls instead of 360. Here each operation runs
    once over all frames that have it at the same place of their order.
    """
    frames = frames.clone()
    for numbers, factors in steps.transpose(1, 2, 0):
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            rows = torch.from_numpy(chosen).to(frames.device)
            shaped = torch.from_numpy(factors[chosen]).float().to(frames.device).view(-1, 1, 1, 1)
            changed = _OPERATIONS[int(number)](frames[rows].float(), shaped)
            frames[rows] = changed.clamp_(0, 255).to(torch.uint8)
    return frames


def _brightness(frames: Tensor, factors: Tensor) -> Tensor:
    return frames * factors


def _contrast(frames: Tensor, factors: Tensor) -> Tensor:
    return frames * factors + _gray(frames).mean(dim=(1, 2, 3), keepdim=True) * (1 - factors)


def _saturation(frames: Tensor, factors: Tensor) -> Tensor:
    return frames * factors + _gray(frames) * (1 - factors)


def _gray(frames: Tensor) -> Tensor:
    red, green, blue = frames.chunk(3, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_()


def _hue(frames: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue: RGB to HSV, shift H, back by channel = V - V S max(0, min(k, 4 - k, 1))."""
    frames = frames / 255
    low, value = torch.aminmax(frames, dim=1, keepdim=True)
    spread = value - low
    red, green, blue = frames.chunk(3, dim=1)
    second = torch.where(value == green, blue - red, red - green)
    sixth = torch.where(value == red, green - blue, second)
    sixth /= torch.where(spread == 0, 1.0, spread)
    sixth += torch.where(value == red, 0, torch.where(value == green, 2, 4)) + 6 * shifts
    k = (sixth + torch.tensor([5.0, 3.0, 1.0], device=frames.device).view(3, 1, 1)).remainder_(6)
    return (value - spread * torch.minimum(k, 4 - k).clamp_(0, 1)) * (256 - 1e-3)


_OPERATIONS = (_brightness, _contrast, _saturation, _hue)


def _erase(output: Tensor, probability: float, seeds: Sequence[int]) -> None:
    """Erase, in place, a rectangle of each frame of the clips that draw below `probability`."""
    height, width = output.shape[-2:]
    fill = torch.tensor(ERASE_FILL, device=output.device).view(3, 1, 1)
    for clip, seed in zip(output, seeds, strict=True):
        rng = _rng(seed, _ERASE)
        decision, vertical, horizontal = rng.random(3)
        if decision >= probability:
            continue
        for frame in clip:
            size = _erased_size(height, width, rng)
            if size is not None:
                top = round(vertical * (height - size[0]))
                left = round(horizontal * (width - size[1]))
                frame[:, top : top + size[0], left : left + size[1]] = fill


def _erased_size(height: int, width: int, rng: np.random.Generator) -> tuple[int, int] | None:
    for _ in range(_ERASE_ATTEMPTS):
        area = rng.uniform(*ERASE_AREA) * height * width
        aspect = rng.uniform(*ERASE_ASPECT)
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            return rows, columns
    return None

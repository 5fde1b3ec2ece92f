"""Training augmentation of a batch of clips, on the CPU or the GPU (MODEL 2; paper 3.2.5, 4.2).

Order: (bicubic resize, in the dataset) -> pad and crop -> color jitter -> flip -> float ->
ImageNet normalization -> random erasing. With `color_jitter.place: on_crop` jitter is the dataset's
work too, before the resize. All draws come from the clip's own seed, one stream per
transform, so they depend neither on the rest of the batch, nor on the device, nor on which other
transforms are on.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reid.config import Augment, ColorJitter
from reid.data import jitter
from reid.data.normalize import normalize

ERASE_FILL = (0.4914, 0.4822, 0.4465)
"""Put in after normalization, as released."""
ERASE_AREA = (0.02, 0.4)
ERASE_ASPECT = (0.3, 1 / 0.3)
_ERASE_ATTEMPTS = 100

_CROP, _FLIP, _ERASE = 1, 3, 4  # jitter.STREAM is 2


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
        frames = _jitter(frames, options.color_jitter, seeds)
    flipped = [_rng(seed, _FLIP).random() < options.flip for seed in seeds]
    mirrored = torch.tensor(flipped, device=frames.device)
    if any(flipped):
        frames = torch.where(mirrored.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)
    output = normalize(frames)
    if options.erase:
        _erase(output, options.erase, seeds)
    return output


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def _pad_and_crop(frames: Tensor, pad: int, seeds: Sequence[int]) -> Tensor:
    """Black border of `pad` pixels, then a random crop of the old size: a shift per clip."""
    height, width = frames.shape[-2:]
    output = torch.zeros_like(frames)
    for clip, seed in enumerate(seeds):
        down, right = (int(shift) for shift in _rng(seed, _CROP).integers(-pad, pad + 1, size=2))
        to_rows, from_rows = _shifted(down, height)
        to_columns, from_columns = _shifted(right, width)
        output[clip, ..., to_rows, to_columns] = frames[clip, ..., from_rows, from_columns]
    return output


def _shifted(shift: int, size: int) -> tuple[slice, slice]:
    """Where pixels go and come from when an axis is shifted by `shift`."""
    to, source = max(shift, 0), max(-shift, 0)
    length = max(size - abs(shift), 0)
    return slice(to, to + length), slice(source, source + length)


def _jitter(frames: Tensor, options: ColorJitter, seeds: Sequence[int]) -> Tensor:
    drawn = [jitter.of_clip(options, frames.shape[1], seed) for seed in seeds]
    parameters = jitter.Jitter(
        np.concatenate([one.orders for one in drawn]),
        np.concatenate([one.factors for one in drawn]),
    )
    return jitter.apply(frames.flatten(0, 1), parameters, options).view_as(frames)


def _erase(output: Tensor, probability: float, seeds: Sequence[int]) -> None:
    """Erase, in place, a rectangle of each frame of the clips that draw below `probability`."""
    height, width = output.shape[-2:]
    fill = torch.tensor(ERASE_FILL, device=output.device).view(3, 1, 1)
    for clip, seed in enumerate(seeds):
        rng = _rng(seed, _ERASE)
        decision, vertical, horizontal = rng.random(3)
        if decision >= probability:
            continue
        for frame in output[clip]:
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

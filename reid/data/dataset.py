"""Tracklets as clips of decoded frames; every random choice follows from the seeds of the draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from reid.config import Clip, ColorJitter
from reid.data.augment import draw_jitter, jitter
from reid.data.frames import Files, Frames
from reid.data.packed import Packed
from reid.data.sampler import Draw, sample_frames
from reid.data.tracklet import Tracklet
from reid.errors import UserError

_CROP_BYTES = 1 << 18
"""Larger files are no crops: their size in pixels is looked at before they are decoded."""
_MOST_PIXELS = 1 << 26


def decode(data: bytes, *, name: str) -> Tensor:
    """Decode a JPEG to uint8 (3, h, w) RGB; the same pixels as Pillow's, both use libjpeg.

    `name` stands for the file in errors. Raises UserError when `data` is not a whole JPEG of a
    reasonable size.
    """
    try:
        if len(data) > _CROP_BYTES:
            with Image.open(BytesIO(data), formats=("JPEG",)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
        return pixels
    except (RuntimeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0].partition(":")[0]
        raise UserError(
            f"{name} is not a whole JPEG ({reason}): replace or delete it and run `reid index`"
        ) from None


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 (3, h, w) to (3, height, width): bicubic, antialiased when it shrinks.

    Within two gray levels of Pillow, with which the released code resizes. On pure noise that
    holds for Pillow before version 13, which also resized rows before columns.
    """
    resized: Tensor = F.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=True)
    return resized


@dataclass(frozen=True)
class Batch:
    """B clips of T frames, one clip a tracklet."""

    frames: Tensor
    """uint8 (B, T, 3, H, W)."""
    label: Tensor
    """int64 (B,): identities as dense class numbers."""
    camera: Tensor
    """int64 (B,)."""
    metadata: Tensor
    """float32 (B, 3): altitude m, distance m, angle degrees; NaN where unknown."""
    heights: Tensor
    """float32 (B, T): heights of the crops as stored, pixels."""
    index: Tensor
    """int64 (B,): positions of the tracklets in the dataset."""
    seed: tuple[int, ...]
    """B seeds, one of each draw: what `augment` takes."""

    def pin_memory(self) -> "Batch":
        """Copy in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Copy on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Any]) -> "Batch":
        tensors = {name: value for name, value in vars(self).items() if name != "seed"}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as NumPy arrays: tensors would go through /dev/shm, which is small in containers,
        and where it is full torch waits forever."""
        return _unpickle, (vars(self._map(Tensor.numpy)),)


def _unpickle(values: dict[str, Any]) -> Batch:
    return Batch(**values)._map(torch.from_numpy)


def dense_labels(tracklets: Sequence[Tracklet]) -> list[int]:
    """Class numbers 0..C-1 of tracklets: rank of the identity among all present, ascending."""
    ranks = {
        identity: rank for rank, identity in enumerate(sorted({t.identity for t in tracklets}))
    }
    return [ranks[tracklet.identity] for tracklet in tracklets]


class TrackletDataset(Dataset[Batch]):
    """Map-style dataset of clips, batches of one; keys are `Draw`s, or positions (seed 0).

    The frames of a clip depend on the dataset's seed and the draw's seed only. `metadata=False`
    hides altitude, distance and angle (`dataset.metadata`). With `pack` frames are read from that
    folder (reid.data.pack) and `root` is not needed; that changes speed only. `color_jitter` is
    applied to the decoded crops when its `place` is `on_crop`. Raises UserError naming the file
    when a frame is missing or damaged: nothing is skipped and nothing invented.
    """

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        root: Path,
        *,
        clip: Clip,
        train: bool,
        seed: int = 0,
        metadata: bool = True,
        pack: Path | None = None,
        color_jitter: ColorJitter | None = None,
    ) -> None:
        self.tracklets = tuple(tracklets)
        self.labels = dense_labels(self.tracklets)
        self._stored: Frames = Files(root) if pack is None else Packed(pack, self.tracklets)
        self._clip = clip
        self._train = train
        self._seed = seed
        self._metadata = metadata
        self._jitter = None
        if color_jitter is not None and color_jitter.active and color_jitter.place == "on_crop":
            self._jitter = color_jitter

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, key: Draw | int) -> Batch:
        return self.load([key])

    def load(self, keys: Sequence[Draw | int]) -> Batch:
        """Clips of several draws as one batch, decoded straight into its memory."""
        draws = [key if isinstance(key, Draw) else Draw(key, 0) for key in keys]
        tracklets = [self.tracklets[draw.index] for draw in draws]
        clip = self._clip
        shape = (len(draws), clip.frames, 3, clip.height, clip.width)
        frames = torch.empty(shape, dtype=torch.uint8)
        heights = torch.empty(shape[:2])
        for number, draw in enumerate(draws):
            self._decode(draw, frames[number], heights[number])
        metadata = torch.tensor([(t.altitude, t.distance, t.angle) for t in tracklets])
        return Batch(
            frames=frames,
            label=torch.tensor([self.labels[draw.index] for draw in draws]),
            camera=torch.tensor([tracklet.camera for tracklet in tracklets]),
            metadata=metadata if self._metadata else torch.full_like(metadata, torch.nan),
            heights=heights,
            index=torch.tensor([draw.index for draw in draws]),
            seed=tuple(draw.seed for draw in draws),
        )

    def _decode(self, draw: Draw, frames: Tensor, heights: Tensor) -> None:
        """Fill uint8 (T, 3, H, W) and float32 (T,) with the frames of one draw."""
        tracklet = self.tracklets[draw.index]
        positions = sample_frames(
            len(tracklet.frames),
            self._clip.frames,
            rng=np.random.default_rng([self._seed, draw.seed]) if self._train else None,
            test=self._clip.test_sampling,
        ).tolist()
        self._stored.expect(tracklet, positions)
        drawn = draw_jitter(self._jitter, len(positions), draw.seed) if self._jitter else None
        crops: dict[int, Tensor] = {}  # a short tracklet repeats its last frame
        for number, position in enumerate(positions):
            if position not in crops:
                name = self._stored.name(tracklet, position)
                crops[position] = decode(self._stored.read(tracklet, position), name=name)
            crop = crops[position]
            if drawn is not None:
                crop = jitter(crop[None], drawn[number : number + 1])[0]
            heights[number] = crop.shape[1]
            frames[number] = resize(crop, self._clip.height, self._clip.width)

"""Tracklets as clips of decoded frames; every random choice follows from the seeds of the draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reid.config import Clip, ColorJitter
from reid.data.augment import draw_jitter, jitter
from reid.data.decode import decode, resize
from reid.data.frames import Files, Frames
from reid.data.packed import Packed
from reid.data.sampler import Draw, sample_frames
from reid.data.tracklet import Tracklet


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

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        names = [field.name for field in fields(self) if field.name != "seed"]
        tensors: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **tensors)


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
        frames = torch.empty(
            (len(draws), clip.frames, 3, clip.height, clip.width), dtype=torch.uint8
        )
        heights = torch.empty(frames.shape[:2])
        for number, draw in enumerate(draws):
            self._decode(draw, frames[number], heights[number])
        unknown = (float("nan"),) * 3
        return Batch(
            frames=frames,
            label=torch.tensor([self.labels[draw.index] for draw in draws]),
            camera=torch.tensor([tracklet.camera for tracklet in tracklets]),
            metadata=torch.tensor(
                [
                    (t.altitude, t.distance, t.angle) if self._metadata else unknown
                    for t in tracklets
                ]
            ),
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
                crop = jitter(crop[None], drawn.frame(number))[0]
            heights[number] = crop.shape[1]
            frames[number] = resize(crop, self._clip.height, self._clip.width)

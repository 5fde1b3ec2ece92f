"""Tracklets as clips of decoded frames; every choice hangs on the seeds of the draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reid.config import Clip, ColorJitter
from reid.data import jitter
from reid.data.decode import Decoder, decode_into
from reid.data.frames import Files, Frames
from reid.data.packed import Packed
from reid.data.resize import prepare
from reid.data.sampler import Draw, sample_frames
from reid.data.tracklet import Tracklet


@dataclass(frozen=True)
class Sample:
    """One clip of a tracklet."""

    frames: Tensor
    """uint8 (T, 3, H, W)."""
    label: int
    """Identity as a dense class number."""
    camera: int
    metadata: Tensor
    """float32 (3,): altitude m, distance m, angle degrees; NaN where unknown."""
    heights: Tensor
    """float32 (T,): heights of the crops as stored, pixels."""
    index: int
    """Position of the tracklet in the dataset."""
    seed: int
    """Seed of this drawing: what the augmentation of this clip is drawn from."""


@dataclass(frozen=True)
class Batch:
    """B clips: the fields of `Sample`, stacked."""

    frames: Tensor
    """uint8 (B, T, 3, H, W)."""
    label: Tensor
    """int64 (B,)."""
    camera: Tensor
    """int64 (B,)."""
    metadata: Tensor
    """float32 (B, 3)."""
    heights: Tensor
    """float32 (B, T)."""
    index: Tensor
    """int64 (B,)."""
    seed: tuple[int, ...]
    """B seeds: what `augment` takes."""

    def pin_memory(self) -> "Batch":
        """Copy in page-locked memory, from where copies to a GPU run by themselves."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """Copy on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            frames=change(self.frames),
            label=change(self.label),
            camera=change(self.camera),
            metadata=change(self.metadata),
            heights=change(self.heights),
            index=change(self.index),
            seed=self.seed,
        )


def dense_labels(tracklets: Sequence[Tracklet]) -> list[int]:
    """Class numbers 0..C-1 of tracklets: rank of the identity among all present, ascending."""
    ranks = {
        identity: rank for rank, identity in enumerate(sorted({t.identity for t in tracklets}))
    }
    return [ranks[tracklet.identity] for tracklet in tracklets]


class TrackletDataset(Dataset[Sample]):
    """Map-style dataset of clips; keys are `Draw`s, or plain positions (seed 0).

    The frames of a clip depend on the dataset's seed and the draw's seed only. `metadata=False`
    hides altitude, distance and angle (`dataset.metadata`). With `pack` frames are read from that
    folder (reid.data.pack) and `root` is not needed; `pack` and `decoder` change speed only.
    `color_jitter` is applied to the decoded crops when its `place` is `on_crop`. Raises UserError
    naming the file when a frame is missing or damaged: nothing is skipped and nothing invented.
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
        decoder: Decoder = "fast",
        color_jitter: ColorJitter | None = None,
    ) -> None:
        self.tracklets = tuple(tracklets)
        self.labels = dense_labels(self.tracklets)
        self._stored: Frames = Files(root) if pack is None else Packed(pack, self.tracklets)
        self._clip = clip
        self._train = train
        self._seed = seed
        self._metadata = metadata
        self._decoder: Decoder = decoder
        self._jitter = None
        if color_jitter is not None and color_jitter.active and color_jitter.place == "on_crop":
            self._jitter = color_jitter

    def __len__(self) -> int:
        return len(self.tracklets)

    def prepare(self) -> None:
        """Compute what loading processes share, before they are forked."""
        if self._decoder == "fast":
            prepare(self._clip.height, self._clip.width)

    def __getitem__(self, key: Draw | int) -> Sample:
        batch = self.load([key])
        return Sample(
            frames=batch.frames[0],
            label=int(batch.label),
            camera=int(batch.camera),
            metadata=batch.metadata[0],
            heights=batch.heights[0],
            index=int(batch.index),
            seed=batch.seed[0],
        )

    def batch_shape(self, clips: int) -> tuple[int, int, int, int, int]:
        """Shape of the frames of a batch: (B, T, 3, H, W)."""
        return (clips, self._clip.frames, 3, self._clip.height, self._clip.width)

    def load(self, keys: Sequence[Draw | int], out: np.ndarray | None = None) -> Batch:
        """Clips of several draws as one batch, decoded straight into its memory.

        That is `out`, uint8 (B, T, 3, H, W), when given.
        """
        draws = [key if isinstance(key, Draw) else Draw(key, 0) for key in keys]
        tracklets = [self.tracklets[draw.index] for draw in draws]
        frames = np.empty(self.batch_shape(len(draws)), np.uint8) if out is None else out
        heights = np.empty(frames.shape[:2], np.float32)
        for number, draw in enumerate(draws):
            self._decode(draw, frames[number], heights[number])
        unknown = (float("nan"),) * 3
        return Batch(
            frames=torch.from_numpy(frames),
            label=torch.tensor([self.labels[draw.index] for draw in draws]),
            camera=torch.tensor([tracklet.camera for tracklet in tracklets]),
            metadata=torch.tensor(
                [
                    (t.altitude, t.distance, t.angle) if self._metadata else unknown
                    for t in tracklets
                ]
            ),
            heights=torch.from_numpy(heights),
            index=torch.tensor([draw.index for draw in draws]),
            seed=tuple(draw.seed for draw in draws),
        )

    def _decode(self, draw: Draw, frames: np.ndarray, heights: np.ndarray) -> None:
        """Fill uint8 (T, 3, H, W) and float32 (T,) with the frames of one draw."""
        tracklet = self.tracklets[draw.index]
        positions = sample_frames(
            len(tracklet.frames),
            self._clip.frames,
            rng=np.random.default_rng([self._seed, draw.seed]) if self._train else None,
            test=self._clip.test_sampling,
        ).tolist()
        self._stored.expect(tracklet, positions)
        changes = self._changes(draw, len(positions))
        for slot, position in enumerate(positions):
            if changes is None and slot and position == positions[slot - 1]:
                frames[slot], heights[slot] = frames[slot - 1], heights[slot - 1]
                continue
            heights[slot] = decode_into(
                self._stored.read(tracklet, position),
                frames[slot],
                decoder=self._decoder,
                name=self._stored.name(tracklet, position),
                change=None if changes is None else changes[slot],
            )

    def _changes(self, draw: Draw, count: int) -> list[Callable[[np.ndarray], np.ndarray]] | None:
        """What to do to each decoded crop of a clip."""
        options = self._jitter
        if options is None:
            return None
        drawn = jitter.of_clip(options, count, draw.seed)
        return [
            partial(jitter.on_crop, parameters=drawn, number=number, options=options)
            for number in range(count)
        ]

"""Tracklets as batches of decoded frames, the same for any number of loading processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid.config import Clip
from reid.data.decode import Decoder, decode_into
from reid.data.frames import Files, Frames
from reid.data.layout import Tracklet
from reid.data.packed import Packed
from reid.data.resize import prepare
from reid.data.sampler import Draw, sample_frames
from reid.errors import UserError


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
        """Copy in page-locked memory; the data loader calls it by this name."""
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
    folder (reid.data.pack) and `root` is not needed; `pack` and `decoder` change speed only. Raises
    UserError naming the file when a frame is missing or damaged: nothing is skipped and nothing
    invented.
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
    ) -> None:
        self.tracklets = tuple(tracklets)
        self.labels = dense_labels(self.tracklets)
        self._stored: Frames = Files(root) if pack is None else Packed(pack, self.tracklets)
        self._clip = clip
        self._train = train
        self._seed = seed
        self._metadata = metadata
        self._decoder: Decoder = decoder

    def __len__(self) -> int:
        return len(self.tracklets)

    def prepare(self) -> None:
        """Compute what loading processes share, before they are forked."""
        if self._decoder == "fast":
            prepare(self._clip.height, self._clip.width)

    def __getitem__(self, key: Draw | int) -> Sample:
        index, seed = (key.index, key.seed) if isinstance(key, Draw) else (key, 0)
        tracklet, clip = self.tracklets[index], self._clip
        positions = sample_frames(
            len(tracklet.frames),
            clip.frames,
            rng=np.random.default_rng([self._seed, seed]) if self._train else None,
            test=clip.test_sampling,
        )
        frames = torch.empty((clip.frames, 3, clip.height, clip.width), dtype=torch.uint8)
        pixels = frames.numpy()
        heights = torch.empty(clip.frames, dtype=torch.float32)
        for slot, position in enumerate(positions):
            if slot and position == positions[slot - 1]:
                frames[slot], heights[slot] = frames[slot - 1], heights[slot - 1]
                continue
            heights[slot] = decode_into(
                self._stored.read(tracklet, position),
                pixels[slot],
                decoder=self._decoder,
                name=self._stored.name(tracklet, position),
            )
        known = (tracklet.altitude, tracklet.distance, tracklet.angle)
        return Sample(
            frames=frames,
            label=self.labels[index],
            camera=tracklet.camera,
            metadata=torch.tensor(known if self._metadata else (float("nan"),) * 3),
            heights=heights,
            index=index,
            seed=seed,
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch."""
    return Batch(
        frames=torch.stack([sample.frames for sample in samples]),
        label=torch.tensor([sample.label for sample in samples]),
        camera=torch.tensor([sample.camera for sample in samples]),
        metadata=torch.stack([sample.metadata for sample in samples]),
        heights=torch.stack([sample.heights for sample in samples]),
        index=torch.tensor([sample.index for sample in samples]),
        seed=tuple(sample.seed for sample in samples),
    )


def loader(
    dataset: TrackletDataset, batches: Sequence[Sequence[Draw]], *, workers: int
) -> Iterator[Batch]:
    """Load `batches` in their order with `workers` processes (0: in this one).

    Leaves the global random state alone. Raises UserError for an unreadable frame, from
    whatever process, or when a loading process dies.
    """
    if workers:
        dataset.prepare()
    pages = DataLoader(
        _Guarded(dataset),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=workers,
        collate_fn=_collate_guarded,
        pin_memory=torch.cuda.is_available(),
        # Else the loader draws its base seed from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        for batch in pages:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a data-loading process died ({str(error).splitlines()[0]}): often memory ran out; "
            "lower runtime.workers or ask for more memory"
        ) from error


class _Guarded(Dataset[Sample | UserError]):
    """Hand a UserError through as a value: torch re-raises exceptions of workers garbled."""

    def __init__(self, dataset: TrackletDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Draw) -> Sample | UserError:
        try:
            return self._dataset[key]
        except UserError as error:
            return error


def _collate_guarded(samples: Sequence[Sample | UserError]) -> Batch | UserError:
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    return collate(good)

"""Which frames of a tracklet a configuration can ever sample at test."""

from collections.abc import Callable, Collection

import numpy as np

from reid.config import Clip
from reid.data.layout import Tracklet
from reid.data.sampler import sample_frames
from reid.errors import UserError

Selection = Callable[[Tracklet], tuple[int, ...] | None]
"""Positions of the frames to keep, ascending; None: all."""


def everything(tracklet: Tracklet) -> None:
    """Keep every frame."""
    del tracklet


def sampled(frames: int, clips: Collection[Clip]) -> Selection:
    """Of queries and gallery, what test sampling takes: clips of `frames` frames, and `clips`.

    Training tracklets stay whole: training may draw any of their frames. Raises UserError when a
    clip takes more than `frames`.
    """
    if frames < 1:
        raise UserError(f"--frames-per-tracklet is {frames}: expected at least 1")
    for clip in clips:
        if clip.frames > frames:
            raise UserError(
                f"--frames-per-tracklet is {frames}, but a training takes clip.frames "
                f"{clip.frames} of each tracklet: give at least that"
            )
    ways = {(clip.frames, clip.test_sampling) for clip in clips}
    ways |= {(frames, sampling) for _, sampling in ways}

    def keep(tracklet: Tracklet) -> tuple[int, ...] | None:
        count = len(tracklet.frames)
        if tracklet.subset == "train":
            return None
        taken = [sample_frames(count, wanted, test=sampling) for wanted, sampling in sorted(ways)]
        kept = np.unique(np.concatenate(taken))
        return None if len(kept) == count else tuple(kept.tolist())

    return keep

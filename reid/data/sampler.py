"""Which frames of a tracklet, and which tracklets of a batch (MODEL 2).

Every choice is a pure function of seeds, so batches do not depend on the number of workers,
and a resumed run repeats them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid.errors import UserError


@dataclass(frozen=True)
class Draw:
    """A tracklet to load, and the seed of everything random about this one loading."""

    index: int
    seed: int


def sample_frames(
    n: int,
    frames: int,
    *,
    rng: np.random.Generator | None = None,
    test: Literal["first", "center"] = "first",
) -> np.ndarray:
    """Positions (int64, ascending) of `frames` frames of a tracklet of `n` frames.

    The tracklet is cut into `frames` chunks of n // frames. Training (`rng` given): one random
    frame of each, the last chunk taking the remainder. Test: the first of each chunk, so that
    of 31 frames the first 16 are taken, or with `test="center"` the middle of each of `frames`
    equal parts of the whole. A shorter tracklet repeats its last frame.
    """
    if n < 1 or frames < 1:
        raise ValueError(f"need at least one frame of at least one, got {frames} of {n}")
    length = max(n, frames)
    chunk = length // frames
    starts = np.arange(frames) * chunk
    if rng is not None:
        sizes = np.full(frames, chunk)
        sizes[-1] = length - starts[-1]
        picked = starts + rng.integers(sizes)
    elif test == "first":
        picked = starts
    else:
        picked = (2 * np.arange(frames) + 1) * length // (2 * frames)
    positions: np.ndarray = np.minimum(picked, n - 1)
    return positions


def pk_batches(
    labels: Sequence[int], *, stage: str, batch_size: int, instances: int, seed: int, epoch: int
) -> list[list[Draw]]:
    """Batches of batch_size / K identities with K = `instances` tracklets each, for one epoch.

    As the released "softmax-triplet" sampler: each identity's tracklets are permuted and cut
    into chunks of K, dropping the remainder; an identity with fewer than K is drawn with
    replacement; chunks of all identities are shuffled together (so two chunks of a batch may
    be of one identity); the incomplete last batch is dropped. Raises UserError when there is
    not one whole batch; `stage` is whose options they are (`stage1`).
    """
    if batch_size % instances:
        raise ValueError(f"batch of {batch_size} is not a multiple of {instances} instances")
    rng = np.random.default_rng([seed, epoch])
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    chunks: list[np.ndarray] = []
    for label in sorted(by_label):
        own = np.array(by_label[label])
        if len(own) < instances:
            own = rng.choice(own, size=instances, replace=True)
        whole = rng.permutation(own)[: len(own) // instances * instances]
        chunks += list(whole.reshape(-1, instances))
    order = rng.permutation(len(chunks))
    flat = [int(index) for chunk in order for index in chunks[chunk]]
    if len(flat) < batch_size:
        raise UserError(
            f"{len(by_label)} training identities give {len(flat)} tracklets an epoch by "
            f"{instances}: fewer than one batch of {batch_size}; lower {stage}.batch_size"
        )
    return _batches(
        flat[: len(flat) // batch_size * batch_size], batch_size, seed=seed, epoch=epoch
    )


def sequential_batches(n: int, *, batch_size: int, seed: int = 0) -> list[list[Draw]]:
    """All of `n` tracklets in order, the last batch maybe shorter: extraction, cached views."""
    return _batches(list(range(n)), batch_size, seed=seed, epoch=0)


def _batches(order: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[Draw]]:
    # One seed per position of the epoch, apart from the stream that chose the order.
    seeds = np.random.default_rng([seed, epoch, 1]).integers(2**63 - 1, size=len(order))
    draws = [Draw(index, int(own)) for index, own in zip(order, seeds, strict=True)]
    return [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]

"""Identities held out of training, to tune on instead of on the test set."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from reid.config import Validation
from reid.data.tracklet import Tracklet
from reid.errors import UserError

VALIDATION: Final = "validation"
"""Stands for a protocol where the held-out tracklets are meant."""


def hold_out(identities: Iterable[int], *, share: float, seed: int) -> frozenset[int]:
    """A share of the identities, rounded, at least two unless `share` is 0.

    Which ones depends on each identity and the seed alone: identities that join the data set
    later move few others. Raises UserError when fewer than two would be left on either side.
    """
    if share == 0:
        return frozenset()
    everyone = sorted(set(identities), key=lambda identity: _draw(identity, seed))
    count = max(2, round(share * len(everyone)))
    if len(everyone) - count < 2:
        raise UserError(
            f"validation.share {share} of {len(everyone)} identities leaves fewer than two to "
            "train on: lower it"
        )
    return frozenset(everyone[:count])


def part(
    tracklets: Sequence[Tracklet], options: Validation, which: Literal["train", "validation"]
) -> tuple[Tracklet, ...]:
    """Training tracklets of the identities that are trained on, or of those held out."""
    identities = {tracklet.identity for tracklet in tracklets}
    held = hold_out(identities, share=options.share, seed=options.seed)
    wanted = held if which == VALIDATION else identities - held
    return tuple(tracklet for tracklet in tracklets if tracklet.identity in wanted)


def held_out(
    tracklets: Sequence[Tracklet], options: Validation, training: str
) -> tuple[Tracklet, ...]:
    """Tracklets of the identities that a training holds out; UserError when it holds out none."""
    if options.share == 0:
        raise UserError(
            f"trainings.{training}.validation.share is 0: no identities are held out to tune on; "
            "set it and train again"
        )
    return part(tracklets, options, VALIDATION)


def _draw(identity: int, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{identity}".encode()).digest()

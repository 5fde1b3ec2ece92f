"""Learning rate by epoch (paper Tables 2 and 4)."""

import math
from bisect import bisect_right

from reid.config import Schedule


def learning_rate(options: Schedule, base: float, epoch: int, epochs: int) -> float:
    """Learning rate of the `epoch`-th of `epochs` epochs (from 0), for a group with rate `base`.

    Cosine falls from base to `min_lr` over all epochs; multistep multiplies by gamma at each
    step. Linear warm-up from `warmup_factor` replaces the first epochs of a cosine and scales
    those of multistep. With `stepped: before`, the released baseline's way, the n-th epoch
    (from 0) runs at epoch n + 1 of the schedule.
    """
    at = epoch + (options.stepped == "before")
    warm = at < options.warmup_epochs
    share = at / options.warmup_epochs if warm else 1.0
    factor = options.warmup_factor * (1 - share) + share
    if options.kind == "multistep":
        return float(base * factor * options.gamma ** bisect_right(options.steps, at))
    if warm:
        return base * factor
    low = min(options.min_lr, base)
    return low + 0.5 * (base - low) * (1 + math.cos(math.pi * at / epochs))

"""Will it fit? An estimate of GPU memory before training starts (MODEL section 5)."""

from dataclasses import dataclass

from reid.errors import UserError
from reid.model.network import VideoReID

KEPT_PER_TOKEN = 17
"""Tensors of a token's width that a block keeps for backward, adapters included. MODEL section 5
measured 80.4 MB (B/16) and 269 MB (L/14) a frame in float32: 16.9 and 16.8."""
RESERVE = 2 * 2**30
"""Bytes for the CUDA context, workspaces and fragmentation."""


@dataclass(frozen=True)
class Need:
    """Bytes that training takes on the device."""

    fixed: int
    """Weights, gradients, Adam's moments, the reserve."""
    frame: int
    """Activations kept for each frame in flight."""

    def total(self, tracklets: int, frames: int) -> int:
        """Bytes with this many tracklets of this many frames in flight."""
        return self.fixed + tracklets * frames * self.frame


def estimate(model: VideoReID, *, half: bool, activation_checkpointing: bool) -> Need:
    """Estimate what training `model` takes. `half`: autocast to two bytes."""
    tower = model.visual
    size = 2 if half else 4
    tokens = tower.rows * tower.columns + 1
    stream = tokens * model.geometry.width * size
    block = KEPT_PER_TOKEN * stream
    depth = len(tower.blocks)
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 * parameters if half else 0
    return Need(
        fixed=4 * parameters + copies + 12 * trainable + RESERVE,
        frame=depth * stream + block if activation_checkpointing else depth * block,
    )


def check(need: Need, *, available: int, tracklets: int, frames: int, batch: int) -> None:
    """Raise UserError when `tracklets` at a time do not fit, saying what would."""
    wanted = need.total(tracklets, frames)
    if wanted <= available:
        return
    fitting = (available - need.fixed) // (need.frame * frames)
    divisors = [n for n in range(1, batch + 1) if batch % n == 0 and n <= fitting]
    advice = (
        f"set runtime.micro_batch to {divisors[-1]}, which gives the same loss and gradient"
        if divisors
        else "not one tracklet fits: use runtime.precision bf16 and activation_checkpointing"
    )
    raise UserError(
        f"{tracklets} tracklets of {frames} frames at a time need about {wanted / 2**30:.0f} GiB "
        f"of GPU memory, but {available / 2**30:.0f} GiB are free: {advice}; "
        "runtime.precision bf16 halves and runtime.activation_checkpointing divides it further"
    )

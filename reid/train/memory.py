"""Estimate of the GPU memory of stage 2, checked before its first step (MODEL section 5)."""

from reid.config import Training
from reid.errors import UserError
from reid.model.network import VideoReID
from reid.train.session import Engine

KEPT_PER_TOKEN = 17
"""Tensors of a token's width that a block keeps for backward, adapters included. MODEL section 5
measured 80.4 MB (B/16) and 269 MB (L/14) a frame in float32: 16.9 and 16.8."""
RESERVE = 2 * 2**30
"""Bytes for the CUDA context, workspaces and fragmentation."""


def estimate(model: VideoReID, *, half: bool, activation_checkpointing: bool) -> tuple[int, int]:
    """Bytes that training `model` takes on the device: at all, and for each frame of a micro-batch.

    At all: weights, gradients, Adam's moments, the reserve. A frame: its activations. `half`:
    autocast to two bytes.
    """
    tower, size = model.visual, 2 if half else 4
    stream = (tower.rows * tower.columns + 1) * model.geometry.width * size
    block, depth = KEPT_PER_TOKEN * stream, len(tower.blocks)
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = (6 if half else 4) * parameters + 12 * trainable + RESERVE
    return fixed, depth * stream + block if activation_checkpointing else depth * block


def check(model: VideoReID, training: Training, engine: Engine, *, available: int) -> None:
    """Raise UserError, naming the micro-batch that fits, if stage 2 needs more than `available`.

    available: free bytes on the device.
    """
    runtime, frames = engine.runtime, training.clip.frames
    fixed, frame = estimate(
        model,
        half=engine.precision != "fp32",
        activation_checkpointing=runtime.activation_checkpointing,
    )
    batch = training.stage2.batch_size // engine.world.size
    tracklets = min(runtime.micro_batch or batch, batch)
    needed = fixed + tracklets * frames * frame
    if needed <= available:
        return
    fitting = (available - fixed) // (frame * frames)
    divisors = [size for size in range(1, batch + 1) if batch % size == 0 and size <= fitting]
    advice = (
        f"set runtime.micro_batch to {divisors[-1]}, which gives the same loss and gradient"
        if divisors
        else "not even one tracklet fits: use runtime.precision bf16 and activation_checkpointing"
    )
    raise UserError(
        f"{tracklets} tracklets of {frames} frames at a time need about {needed / 2**30:.0f} GiB "
        f"of GPU memory, but {available / 2**30:.0f} GiB are free: {advice}; "
        "runtime.precision bf16 halves and runtime.activation_checkpointing divides it further"
    )

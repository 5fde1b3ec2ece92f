"""What the speed benchmarks of training and extraction share: two equal networks, work, peak.

`reid` is the product; `naive` (tests/model/naive.py) is the same mathematics written as the
released code does it. Both hold the same random tensors.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.config import Model
from reid.model import network
from reid.model.network import VideoReID
from reid.model.vit import VIT_B16, VIT_L14, Geometry
from tests.model.naive import Naive

CLASSES, CAMERAS, PROMPTS, ADAPTER = 185, 3, 4, 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TINY = Geometry(128, 4, 16, 4, 64, 64, 2, 77, 49408)
"""The rendered benchmark's stand-in for B/16."""


@dataclass(frozen=True)
class Shape:
    """A network, the size of its frames, and how much to run."""

    geometry: Geometry
    height: int
    width: int
    tracklets: int
    frames: int

    @property
    def depth(self) -> int:
        """Blocks with prompts."""
        return min(9, self.geometry.depth)

    @property
    def all_frames(self) -> int:
        """Frames of a batch."""
        return self.tracklets * self.frames


SHAPES = {
    "tiny": Shape(TINY, 128, 64, 16, 4),
    "B/16": Shape(VIT_B16, 256, 128, 4, 4),
    "L/14": Shape(VIT_L14, 256, 128, 2, 2),
}


@dataclass(frozen=True)
class Pair:
    """Both networks and one batch for both."""

    reid: VideoReID
    naive: Naive
    clips: Tensor
    """(B, T, 3, H, W)."""
    cameras: Tensor
    metadata: Tensor
    """(B, 3), all unknown: the released code reads none."""
    labels: Tensor
    bank: Tensor
    """(C, e)."""

    @property
    def released_order(self) -> Tensor:
        """The same clips as the released loader stacks them, (B, 3, T, H, W)."""
        return self.clips.transpose(1, 2).contiguous()

    def difference(self) -> float:
        """Largest difference of the features that the networks extract from the batch."""
        self.reid.eval()
        self.naive.eval()
        with torch.inference_mode():
            mine = self.reid.embed(self.clips, self.cameras, self.metadata)
            return float((mine - self.naive.embed(self.released_order, self.cameras)).abs().max())


def make_pair(shape: Shape, device: torch.device) -> Pair:
    """Both networks with the same random tensors: camera prompts, attention pooling, adapters."""
    torch.manual_seed(0)
    size = (shape.height, shape.width)
    prompts = (shape.depth, PROMPTS)
    with device:
        naive = Naive(
            shape.geometry, classes=CLASSES, cameras=CAMERAS, prompts=prompts, image_size=size
        )
        options = Model.model_validate(
            {
                "prompts": {"length": PROMPTS, "depth": shape.depth, "metadata": False},
                "pooling": {"kind": "attention"},
                "adapters": {"width": ADAPTER},
            }
        )
        reid = network.build(
            options,
            num_classes=CLASSES,
            num_cameras=CAMERAS,
            weights=shape.geometry,
            image_size=size,
        )
        network.load_reference_checkpoint(naive.state_dict(), reid)
        labels = torch.arange(shape.tracklets) // 2
        with torch.no_grad():
            bank = torch.cat([naive.text(some) for some in torch.arange(CLASSES).split(32)])
        return Pair(
            reid=reid,
            naive=naive,
            clips=torch.randn(shape.tracklets, shape.frames, 3, *size),
            cameras=torch.arange(shape.tracklets) % CAMERAS,
            metadata=torch.full((shape.tracklets, 3), torch.nan),
            labels=labels,
            bank=bank,
        )


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one frame that the outputs need (MODEL 4 and 9), forward."""

    total: float
    adapters: float
    """Of the total, what has trained weights."""
    attention: float
    """Of the total, products of two activations."""

    @property
    def extraction(self) -> float:
        """Floating-point operations of a frame."""
        return 2 * self.total

    @property
    def training(self) -> float:
        """Of a frame: forward, gradients of activations, and gradients of trained weights.

        An attention product has two gradients by activations; frozen weights need none.
        """
        return 2 * (2 * self.total + self.attention + self.adapters)


def work(shape: Shape) -> Work:
    """The work of one frame of a clip of `shape.frames`, prompts projected once a tracklet."""
    g, a, t = shape.geometry, ADAPTER, shape.frames
    d = g.width
    cells = ((shape.height - g.patch) // g.patch + 1) * ((shape.width - g.patch) // g.patch + 1)
    total = cells * d * 3 * g.patch**2 + d * g.embed
    adapters = attention = 0.0
    for block in range(g.depth):
        keys = cells + 1
        prompts = PROMPTS if block < shape.depth else 0
        rows = keys if block < g.depth - 1 else 1  # the class token only
        projections = 2 * (rows + keys) * d * d + 2 * prompts / t * d * d
        attends = 2 * rows * (keys + prompts) * d + 2 * rows * t * a
        own = rows * (2 * d * a) + rows * (2 * d * a + 4 * a * a)
        total += projections + 8 * rows * d * d + attends + own
        adapters += own
        attention += attends
    return Work(total, adapters, attention)


def peak(device: torch.device, dtype: torch.dtype, *, size: int | None = None) -> float:
    """Operations a second of the best of several large products, by CPU time on a CPU."""
    size = size or (8192 if device.type == "cuda" else 1536)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        for _ in range(20 if device.type == "cuda" else 6):
            best = min(best, seconds(lambda: left @ right, device))
    return 2 * size**3 / best


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time of one call: of the device on a GPU, of the processor's threads on a CPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    started = time.process_time()
    call()
    return time.process_time() - started


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every call by round, after one call of each to warm up."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(seconds(call, device))
    return found


def table(
    name: str,
    found: Mapping[str, list[float]],
    *,
    frames: int,
    flops: float,
    peak: float,
    memory: Mapping[str, float] | None = None,
) -> list[str]:
    """Markdown rows: frames/s, share of the peak, speed over `naive` (median over rounds)."""
    rows = []
    for label, times in found.items():
        typical = statistics.median(times)
        pairs = zip(found["naive"], times, strict=True)
        ratio = statistics.median(theirs / mine for theirs, mine in pairs)
        cells = [
            name,
            label,
            f"{typical:.3g}",
            f"{frames / typical:.3g}",
            f"{100 * flops * frames / typical / peak:.0f} %",
            f"{ratio:.2f} x",
        ]
        if memory:
            cells.append(f"{memory[label] / 2**30:.1f} GiB")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def head(device: torch.device) -> list[str]:
    """The head of the table."""
    clock = "s" if device.type == "cuda" else "CPU s"
    cells = ["network", "code", clock, f"frames/{clock}", "share of peak", "over naive"]
    cells += ["peak memory"] if device.type == "cuda" else []
    return [f"| {' | '.join(cells)} |", "| --- | --- |" + " ---: |" * (len(cells) - 2)]

"""Training step and extraction against the same mathematics written naively.

    OMP_NUM_THREADS=1 python -m benchmarks.network step --rounds 5
    OMP_NUM_THREADS=1 python -m benchmarks.network extract --rounds 7
    python -m benchmarks.network step --device cuda --precision bf16 --compile --batch 24

`reid` is the product, `naive` is tests/model/naive.py; both hold the same random tensors and see
the same batch. A step: embed the batch, eight loss terms, backward, Adam; the naive one goes
through the text tower for its labels and has an optimizer group per tensor, as the released code.
`naive, graph` extracts as the released evaluation does, which keeps the graph. Items are frames,
the limit is that of the best of several large matrix products. `--frames 16` is the paper's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Call, command_line, compare, cost
from reid.config import FineTune, Losses, Model, Stage2
from reid.model import network
from reid.model.param_groups import trainable_groups
from reid.model.vit import VIT_B16, VIT_L14, Geometry
from reid.train.losses import stage2_loss
from tests.model.naive import Naive

CLASSES, CAMERAS, PROMPTS, ADAPTER = 185, 3, 4, 256
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TINY = Geometry(128, 4, 16, 4, 64, 64, 2, 77, 49408)
"""The rendered benchmark's stand-in for B/16."""
SHAPES = {
    "tiny": (TINY, (128, 64), 16, 4),
    "B/16": (VIT_B16, (256, 128), 4, 4),
    "L/14": (VIT_L14, (256, 128), 2, 2),
}
"""Network, size of its frames, tracklets of a batch, frames of a tracklet."""


class Pair:
    """Both networks with the same random tensors, and one batch in the order that each expects."""

    def __init__(
        self, geometry: Geometry, size: tuple[int, int], batch: int, frames: int, device: str
    ) -> None:
        torch.manual_seed(0)
        depth = min(9, geometry.depth)
        options = {
            "prompts": {"length": PROMPTS, "depth": depth, "metadata": False},
            "pooling": {"kind": "attention"},
            "adapters": {"width": ADAPTER},
        }
        with torch.device(device):
            sizes: dict[str, Any] = {"image_size": size}
            self.naive = Naive(
                geometry, classes=CLASSES, cameras=CAMERAS, prompts=(depth, PROMPTS), **sizes
            )
            sizes |= {"num_classes": CLASSES, "num_cameras": CAMERAS, "weights": geometry}
            self.reid = network.build(Model.model_validate(options), **sizes)
            network.load_reference_checkpoint(self.naive.state_dict(), self.reid)
            self.labels = torch.arange(batch) // 2
            clips, cameras = torch.randn(batch, frames, 3, *size), torch.arange(batch) % CAMERAS
            self.batch = clips, cameras, torch.full((batch, 3), torch.nan)
            self.released_batch = clips.transpose(1, 2).contiguous(), cameras
            with torch.no_grad():
                rows = torch.arange(CLASSES).split(32)
                self.bank = torch.cat([self.naive.text(labels) for labels in rows])

    def extraction(self, autocast: torch.autocast) -> dict[str, Call]:
        """An extraction batch of each; prints how far their features are apart."""
        self.reid.eval(), self.naive.eval()

        def embed(model: Any, batch: tuple[Tensor, ...], mode: Callable[[], Any]) -> Tensor:
            with mode(), autocast:
                return model.embed(*batch)  # type: ignore[no-any-return]

        calls = {
            "reid": partial(embed, self.reid, self.batch, torch.inference_mode),
            "naive": partial(embed, self.naive, self.released_batch, torch.inference_mode),
            "naive, graph": partial(embed, self.naive, self.released_batch, torch.enable_grad),
        }
        difference = (calls["reid"]() - calls["naive"]()).abs().max()
        print(f"\nfeatures differ by {difference:.1e}")
        return dict(calls)

    def steps(self, autocast: torch.autocast) -> dict[str, Call]:
        """A training step of each; prints the loss of the first one."""
        self.reid.train(), self.naive.train()
        groups = [
            {"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay}
            for g in trainable_groups(self.reid, finetune=FineTune(), stage2=Stage2())
        ]
        self.naive.freeze()
        single = [{"params": [p]} for p in self.naive.parameters() if p.requires_grad]

        def reid_loss() -> Tensor:
            features = self.reid(*self.batch)
            logits = self.reid.classify(features)
            return stage2_loss(features, logits, self.bank, self.labels, Losses()).total

        def step(loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
            with autocast:
                loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.item()

        naive_loss = partial(self.naive.loss, *self.released_batch, self.labels, self.bank)
        plain = torch.optim.Adam(single, lr=1e-4, weight_decay=2.5e-4)
        calls = {
            "reid": partial(step, reid_loss, torch.optim.Adam(groups, fused=True)),
            "naive": partial(step, naive_loss, plain),
        }
        print("\nfirst losses", *(f"{call():.6f}" for call in calls.values()))
        return dict(calls)


def operations(geometry: Geometry, size: tuple[int, int], frames: int, *, training: bool) -> float:
    """Floating-point operations of a frame that the outputs need (MODEL 4 and 9).

    Training adds gradients of activations (two of a product of two) and of the adapters' weights.
    """
    d, a = geometry.width, ADAPTER
    rows, columns = ((side - geometry.patch) // geometry.patch + 1 for side in size)
    keys = rows * columns + 1
    total = (keys - 1) * d * 3 * geometry.patch**2 + d * geometry.embed
    adapters = attention = 0.0
    for block in range(geometry.depth):
        prompts = PROMPTS if block < min(9, geometry.depth) else 0
        queries = keys if block < geometry.depth - 1 else 1  # the class token only
        products = 2 * queries * (keys + prompts) * d + 2 * queries * frames * a
        of_adapters = queries * (4 * d * a + 4 * a * a)
        linear = 2 * (queries + keys + prompts / frames) * d * d + 8 * queries * d * d
        total += linear + products + of_adapters
        adapters += of_adapters
        attention += products
    return 2 * (2 * total + attention + adapters) if training else 2 * total


def peak(device: str, dtype: torch.dtype) -> float:
    """Operations per second of the best of several large products, by CPU time on a CPU."""
    size, repeats = (8192, 20) if device == "cuda" else (1536, 6)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    costs = [cost(lambda: left @ right, device) for _ in range(repeats)]
    return 2 * size**3 / min(one.wall if device == "cuda" else one.cpu for one in costs)


def main() -> None:
    """Print tables."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("what", choices=("step", "extract"))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--batch", type=int, help="tracklets; each shape has its own default")
    parser.add_argument("--frames", type=int, help="of a tracklet")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES), help="by autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile our blocks")
    parser.add_argument("--checkpointing", action="store_true", help="recompute our blocks")
    options = parser.parse_args()
    device, dtype = options.device, DTYPES[options.precision]
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: GPU figures are not measured")
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    best = peak(device, dtype)
    print(f"measured peak of a matrix product: {best / 1e12:.3g} TFLOP/s {options.precision}")
    for name in options.shapes:
        geometry, size, batch, frames = SHAPES[name]
        batch, frames = options.batch or batch, options.frames or frames
        pair = Pair(geometry, size, batch, frames, device)
        pair.reid.visual.checkpointing = options.checkpointing
        if options.compile:
            for block in pair.reid.visual.blocks:
                block.compile()
        training = options.what == "step"
        compare(
            f"{options.what}, {name}, {batch} x {frames}",
            (pair.steps if training else pair.extraction)(autocast),
            options.rounds,
            count=batch * frames,
            limit=best / operations(geometry, size, frames, training=training),
            device=device,
        )


if __name__ == "__main__":
    main()

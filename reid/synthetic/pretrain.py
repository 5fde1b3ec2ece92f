"""Two tiny CLIPs, trained from nothing on captioned crops, in the layout of OpenAI's weights.

They stand for ViT-B/16 and ViT-L/14 in the demo, so that it loads real files of real geometry: both
towers, the true vocabulary, QuickGELU, a square position table. None of their people is in the
benchmark.
"""

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from reid.config import Demo
from reid.data.augment import normalize
from reid.errors import UserError
from reid.files import replacing
from reid.synthetic.captions import render_captioned
from reid.synthetic.marks import WEIGHTS_MARK, demand_tiny_clip

CONTEXT = 77
"""Rows of OpenAI's table of text positions."""

_BATCH, _LEARNING_RATE, _WARMUP_STEPS, _MAX_SCALE = 64, 1e-3, 20, 100.0


class Shape(NamedTuple):
    """Sizes of a CLIP. Heads are 64 wide, as OpenAI's."""

    image: int
    patch: int
    width: int
    layers: int
    embed: int  # and width of the text tower

    def build(self, context: int) -> CLIP:
        """An untrained CLIP with `context` text tokens; its parameters have OpenAI's names."""
        return CLIP(
            embed_dim=self.embed,
            vision_cfg={
                "image_size": self.image, "patch_size": self.patch, "head_width": 64,
                "width": self.width, "layers": self.layers,
            },
            text_cfg={
                "context_length": context, "vocab_size": 49408, "layers": 2,
                "width": self.embed, "heads": self.embed // 64,
            },
            quick_gelu=True,
        )  # fmt: skip


SHAPES: Mapping[str, Shape] = {
    "vit_b16": Shape(image=64, patch=16, width=128, layers=4, embed=64),
    "vit_l14": Shape(image=56, patch=14, width=192, layers=5, embed=128),
}


def pretrain(demo: Demo, backbone: str, out: Path) -> None:
    """Render captioned people, train the CLIP that stands for `backbone`, save it as safetensors.

    Raises UserError for a backbone that has no tiny stand-in, and when `out` is another file.
    """
    shape = SHAPES.get(backbone)
    if shape is None:
        raise UserError(f"no tiny CLIP stands for backbone {backbone!r}: use {' or '.join(SHAPES)}")
    demand_tiny_clip(out)
    started = time.monotonic()
    workers = max(1, min(len(os.sched_getaffinity(0)), demo.captions // 100))
    crops, captions = render_captioned(demo.captions, shape.image, seed=demo.seed, workers=workers)
    seconds = time.monotonic() - started
    print(f"{backbone}: {demo.captions} captioned crops in {seconds:.0f} s", flush=True)
    model, losses = train(shape, crops, captions, epochs=demo.clip_epochs, seed=demo.seed)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    missing = CONTEXT - model.context_length
    positions = functional.pad(tensors["positional_embedding"], (0, 0, 0, missing))
    demand_tiny_clip(out)  # rendering and training take a while: look once more
    with replacing(out) as temporary:
        save_file({**tensors, "positional_embedding": positions}, temporary, metadata=WEIGHTS_MARK)
    print(f"{backbone}: {out}, final loss {losses[-1]:.2f}", flush=True)


def train(
    shape: Shape, crops: NDArray[np.uint8], captions: list[str], *, epochs: int, seed: int
) -> tuple[CLIP, list[float]]:
    """Contrastive training (CLIP's symmetric cross-entropy). Returns the model and all losses."""
    tokens = open_clip.tokenize(captions)
    tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]  # nothing follows the end of text
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = shape.build(context=tokens.shape[1])
    draws = torch.Generator().manual_seed(seed)
    batch = min(_BATCH, len(crops))
    steps = epochs * (len(crops) // batch)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    losses: list[float] = []
    for _ in range(epochs):
        order = torch.randperm(len(crops), generator=draws)
        for rows in torch.split(order[: len(order) // batch * batch], batch):
            share = 0.5 + 0.5 * math.cos(math.pi * len(losses) / steps)
            share = min((len(losses) + 1) / _WARMUP_STEPS, share)
            optimizer.param_groups[0]["lr"] = _LEARNING_RATE * share
            pictures = zoom(normalize(pixels[rows]), draws)
            image, text, scale = model(pictures, tokens[rows])
            logits, pairs = scale * image @ text.T, torch.arange(batch)
            loss = functional.cross_entropy(logits, pairs)
            loss = 0.5 * (loss + functional.cross_entropy(logits.T, pairs))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            model.logit_scale.data.clamp_(max=math.log(_MAX_SCALE))
            losses.append(loss.item())
    return model.eval(), losses


def zoom(pictures: Tensor, draws: torch.Generator) -> Tensor:
    """Random part of each picture (60 to 100 % of its height, 72 to 100 % of its width), mirrored
    half of the time: boxes of people differ, and the network later sees another aspect.
    """
    count = len(pictures)
    share = 1.0 - torch.rand(count, 2, generator=draws) * torch.tensor([0.28, 0.4])
    shift = (2.0 * torch.rand(count, 2, generator=draws) - 1.0) * (1.0 - share)
    share[:, 0] *= 2.0 * torch.randint(2, (count,), generator=draws) - 1.0
    affine = torch.cat([torch.diag_embed(share), shift[..., None]], dim=2)
    grid = functional.affine_grid(affine, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

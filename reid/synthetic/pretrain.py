"""Two tiny CLIPs, trained from nothing on captioned crops, in the layout of OpenAI's weights.

They stand for ViT-B/16 and ViT-L/14 in the demo, so that it loads real files of real geometry:
both towers, the true vocabulary, QuickGELU, a square position table. Their people are not those
of the benchmark.
"""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from reid.config import Demo
from reid.errors import UserError
from reid.files import replacing
from reid.synthetic.captions import Captioned, render_captioned
from reid.synthetic.marks import WEIGHTS_MARK, demand_tiny_clip

VOCABULARY = 49408
CONTEXT = 77
# What the network of this project feeds its backbone with (MODEL: ImageNet's, not CLIP's).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_BATCH = 64
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.05
_WARMUP = 20
_MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True)
class Shape:
    """Sizes of a CLIP. Heads are 64 wide, as OpenAI's."""

    image: int
    patch: int
    width: int
    layers: int
    embed: int
    text_width: int
    text_layers: int


SHAPES: Mapping[str, Shape] = {
    "vit_b16": Shape(
        image=64, patch=16, width=128, layers=4, embed=64, text_width=64, text_layers=2
    ),
    "vit_l14": Shape(
        image=56, patch=14, width=192, layers=5, embed=128, text_width=128, text_layers=2
    ),
}


def build(shape: Shape) -> CLIP:
    """An untrained CLIP of open_clip, whose parameters have OpenAI's names."""
    return CLIP(
        embed_dim=shape.embed,
        vision_cfg={
            "image_size": shape.image,
            "patch_size": shape.patch,
            "width": shape.width,
            "layers": shape.layers,
            "head_width": 64,
        },
        text_cfg={
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "width": shape.text_width,
            "heads": shape.text_width // 64,
            "layers": shape.text_layers,
        },
        quick_gelu=True,
    )


def pretrain(demo: Demo, backbone: str, out: Path) -> None:
    """Render captioned people, train the CLIP that stands for `backbone`, save it as safetensors.

    Raises UserError for a backbone that has no tiny stand-in, and when `out` is another file.
    """
    if backbone not in SHAPES:
        raise UserError(f"no tiny CLIP stands for backbone {backbone!r}: use {' or '.join(SHAPES)}")
    demand_tiny_clip(out)
    shape = SHAPES[backbone]
    workers = len(os.sched_getaffinity(0))
    started = time.monotonic()
    data = render_captioned(demo.captions, shape.image, seed=demo.seed, workers=workers)
    print(f"{backbone}: {demo.captions} captioned crops in {time.monotonic() - started:.0f} s")
    model, _ = train(shape, data, epochs=demo.clip_epochs, seed=demo.seed, name=backbone)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    demand_tiny_clip(out)  # rendering and training take a while: look once more
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata=WEIGHTS_MARK)
    print(f"{backbone}: {out}", flush=True)


def train(
    shape: Shape, data: Captioned, *, epochs: int, seed: int, name: str
) -> tuple[CLIP, list[float]]:
    """Contrastive training (CLIP's symmetric cross-entropy). Returns the model and all losses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(shape)
    draws = torch.Generator().manual_seed(seed)
    tokens = open_clip.tokenize(data.captions)
    tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]  # nothing follows the end of text
    crops = torch.from_numpy(data.crops).permute(0, 3, 1, 2)
    batch = min(_BATCH, len(crops))
    per_epoch = len(crops) // batch
    steps = epochs * per_epoch
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=_LEARNING_RATE,
        betas=(0.9, 0.98),
        weight_decay=_WEIGHT_DECAY,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / _WARMUP, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    losses: list[float] = []
    right = 0
    started = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(crops), generator=draws)[: per_epoch * batch]
        for rows in torch.split(order, batch):
            pictures = zoom(normalize(crops[rows]), draws)
            logits = similarities(model, pictures, tokens[rows])
            pairs = torch.arange(len(rows))
            loss = functional.cross_entropy(logits, pairs)
            loss = 0.5 * (loss + functional.cross_entropy(logits.T, pairs))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
            losses.append(loss.item())
            right += int((logits.argmax(dim=1) == pairs).sum())
        seen = per_epoch * batch
        spent = time.monotonic() - started
        left = spent / (epoch + 1) * (epochs - epoch - 1)
        print(
            f"{name}: epoch {epoch + 1}/{epochs}, loss {sum(losses[-per_epoch:]) / per_epoch:.2f}, "
            f"caption found {100 * right / seen:.0f} % of {batch}, "
            f"{seen * (epoch + 1) / spent:.0f} crops/s, {left:.0f} s left",
            flush=True,
        )
        right = 0
    return model.eval(), losses


def similarities(model: CLIP, pictures: Tensor, tokens: Tensor) -> Tensor:
    """Scaled cosines (B, B) of pictures (B, 3, H, W) and captions (B, L <= 77)."""
    length = tokens.shape[1]
    text = model.token_embedding(tokens) + model.positional_embedding[:length]
    text = model.transformer(text, attn_mask=model.attn_mask[:length, :length])
    ends = model.ln_final(text)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    said = functional.normalize(ends @ model.text_projection, dim=-1)
    seen = functional.normalize(model.visual(pictures), dim=-1)
    return torch.as_tensor(model.logit_scale.exp() * seen @ said.T)


def normalize(crops: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 of ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (crops.float() / 255.0 - mean) / std


def zoom(pictures: Tensor, draws: torch.Generator) -> Tensor:
    """Random part of each picture (60 to 100 % of its height, 72 to 100 % of its width), mirrored
    half of the time: boxes of people differ, and the network later sees another aspect.
    """
    count = len(pictures)
    share = 1.0 - torch.rand(count, 2, generator=draws) * torch.tensor([0.28, 0.4])
    shift = (2.0 * torch.rand(count, 2, generator=draws) - 1.0) * (1.0 - share)
    mirrored = torch.rand(count, generator=draws) < 0.5
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = torch.where(mirrored, -share[:, 0], share[:, 0])
    affine[:, 1, 1] = share[:, 1]
    affine[:, :, 2] = shift
    grid = functional.affine_grid(affine, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

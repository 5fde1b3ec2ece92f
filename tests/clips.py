"""Seeded random CLIP weights of any geometry, in the layout of an implementation not ours."""

import math

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor

from reid.model.vit import VIT_B16, Geometry
from reid.model.weights import Weights

TINY = Geometry(
    width=128, depth=3, patch=16, grid=8, embed=64, text_width=64, text_depth=2, context=77,
    vocabulary=49408,
)  # fmt: skip


def open_clip_model(geometry: Geometry, image_size: int | tuple[int, int] | None = None) -> CLIP:
    """An open_clip model of this geometry on the meta device: names and shapes, no numbers."""
    with torch.device("meta"):
        return CLIP(
            embed_dim=geometry.embed,
            vision_cfg=open_clip.CLIPVisionCfg(
                layers=geometry.depth,
                width=geometry.width,
                head_width=64,
                patch_size=geometry.patch,
                image_size=image_size or geometry.grid * geometry.patch,
            ),
            text_cfg=open_clip.CLIPTextCfg(
                context_length=geometry.context,
                vocab_size=geometry.vocabulary,
                width=geometry.text_width,
                heads=geometry.text_width // 64,
                layers=geometry.text_depth,
            ),
            quick_gelu=geometry.activation == "quick_gelu",
        ).eval()


def state_dict(geometry: Geometry) -> dict[str, Tensor]:
    """Random tensors under the names and shapes of `open_clip_model`, which are OpenAI's.

    Every scale and bias is off its usual 1 or 0, which would hide a missing one. Matrices are
    overlapping views of one random block, row i shifted by a few hundred numbers: drawing 400
    million numbers would take longer than the tests.
    """
    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))
    scaled: dict[float, Tensor] = {}
    tensors = {}
    for position, (name, shaped) in enumerate(open_clip_model(geometry).state_dict().items()):
        std = _std(name, shaped.shape)
        if std not in scaled:
            scaled[std] = block * std
        numbers = scaled[std]
        rows = len(shaped) if shaped.dim() > 1 else 1
        columns = shaped.numel() // rows
        step = (len(numbers) - columns - 1000) // rows
        shifted = numbers[position:].as_strided((rows, columns), (min(step, 9973), 1))
        values = shifted.reshape(shaped.shape) if shaped.dim() != 2 else shifted
        if geometry.width < VIT_B16.width:  # may be written to a file, which takes plain memory
            values = values.clone(memory_format=torch.contiguous_format)
        if shaped.dim() == 1 and ".ln_" in f".{name}" and name.endswith("weight"):
            values = values + 1
        tensors[name] = values
    return tensors


def _std(name: str, shape: torch.Size) -> float:
    if len(shape) < 2 or "embedding" in name:
        return 0.1
    if name.endswith(("proj", "text_projection")):
        return float(shape[0] ** -0.5)
    return float(math.prod(shape[1:]) ** -0.5)


def random_weights(geometry: Geometry) -> Weights:
    """Seeded random weights as `reid.model.weights.load` would return them."""
    return Weights(state_dict(geometry), geometry, "random", f"{math.pi}")

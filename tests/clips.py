"""Seeded random CLIP weights of any geometry, from an implementation that is not ours."""

import math

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor

from reid.model.weights import Geometry, Weights

TINY = Geometry(
    width=128, depth=3, patch=16, grid=8, embed=64, text_width=64, text_depth=2, context=77,
    vocabulary=49408,
)  # fmt: skip


def open_clip_model(geometry: Geometry, image_size: int | tuple[int, int] | None = None) -> CLIP:
    """An open_clip model of this geometry with seeded random weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(
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
                heads=geometry.text_heads,
                layers=geometry.text_depth,
            ),
            quick_gelu=True,
        )
        # open_clip starts norms at 1 and biases at 0, which would hide a missing one.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def state_dict(geometry: Geometry) -> dict[str, Tensor]:
    """The tensors of `open_clip_model`, in OpenAI's names."""
    return {
        name: tensor.clone()
        for name, tensor in open_clip_model(geometry).state_dict().items()
        if name != "attn_mask"
    }


def random_weights(geometry: Geometry) -> Weights:
    """Seeded random weights as `reid.model.weights.load` would return them."""
    return Weights(state_dict(geometry), geometry, "random", f"{math.pi}")

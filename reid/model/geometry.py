"""Sizes of a CLIP with a vision transformer, read from the shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.errors import UserError

_UNUSED = ("logit_scale",)
"""Tensors that may be there or not: nothing here reads them."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of both towers, read from the shapes of the weights (MODEL section 4)."""

    width: int
    depth: int
    patch: int
    grid: int
    embed: int
    text_width: int
    text_depth: int
    context: int
    vocabulary: int

    @property
    def heads(self) -> int:
        """Attention heads of the visual tower: CLIP's are 64 wide."""
        return self.width // 64

    @property
    def text_heads(self) -> int:
        """Attention heads of the text tower."""
        return self.text_width // 64


VIT_B16 = Geometry(768, 12, 16, 14, 512, 512, 12, 77, 49408)
VIT_L14 = Geometry(1024, 24, 14, 16, 768, 768, 12, 77, 49408)


def geometry_of(tensors: Mapping[str, Tensor], source: str) -> Geometry:
    """Read the sizes of both towers from the shapes of their tensors (OpenAI names).

    Raises UserError naming a tensor that is missing, unknown, or at odds with the others.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in tensors:
            raise UserError(f"{source}: no tensor {name!r}: expected CLIP ViT weights")
        if tensors[name].dim() != dimensions:
            raise UserError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}: "
                f"expected {dimensions} dimensions as in CLIP"
            )
        return tensors[name].shape

    width, _, patch, _ = shape("visual.conv1.weight", 4)
    positions = shape("visual.positional_embedding", 2)[0] - 1
    grid = math.isqrt(positions)
    if grid * grid != positions:
        raise UserError(f"{source}: {positions} visual positions are no square grid")
    context, text_width = shape("positional_embedding", 2)
    geometry = Geometry(
        width=width,
        depth=_blocks(tensors, "visual.transformer.resblocks."),
        patch=patch,
        grid=grid,
        embed=shape("visual.proj", 2)[1],
        text_width=text_width,
        text_depth=_blocks(tensors, "transformer.resblocks."),
        context=context,
        vocabulary=shape("token_embedding.weight", 2)[0],
    )
    for tower, depth in (("visual", geometry.depth), ("text", geometry.text_depth)):
        if depth == 0:
            raise UserError(f"{source}: no transformer.resblocks of the {tower} tower")
    if width % 64 or text_width % 64:
        raise UserError(
            f"{source}: widths {width} (visual) and {text_width} (text) "
            "must be multiples of 64, the width of a CLIP attention head"
        )
    if shape("text_projection", 2) != (text_width, geometry.embed):
        raise UserError(
            f"{source}: text_projection has shape {tuple(tensors['text_projection'].shape)}: "
            f"expected {(text_width, geometry.embed)} to match the visual tower"
        )
    expected = expected_shapes(geometry)
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in _UNUSED}
    for problem, names in (
        ("lack", expected.keys() - given.keys()),
        ("have unknown", given.keys() - expected.keys()),
        ("have misshapen", {n for n in expected.keys() & given.keys() if expected[n] != given[n]}),
    ):
        if names:
            raise UserError(f"{source}: weights {problem} tensors: {', '.join(sorted(names)[:3])}")
    return geometry


def expected_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of a CLIP with a ViT, as OpenAI publishes it."""

    def blocks(prefix: str, width: int, depth: int) -> dict[str, tuple[int, ...]]:
        block = {
            **_layer_norm("ln_1", width),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            **_layer_norm("ln_2", width),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
        }
        return {
            f"{prefix}transformer.resblocks.{number}.{name}": shape
            for number in range(depth)
            for name, shape in block.items()
        }

    d, t = geometry.width, geometry.text_width
    return {
        "visual.conv1.weight": (d, 3, geometry.patch, geometry.patch),
        "visual.class_embedding": (d,),
        "visual.positional_embedding": (geometry.grid**2 + 1, d),
        **_layer_norm("visual.ln_pre", d),
        **blocks("visual.", d, geometry.depth),
        **_layer_norm("visual.ln_post", d),
        "visual.proj": (d, geometry.embed),
        "token_embedding.weight": (geometry.vocabulary, t),
        "positional_embedding": (geometry.context, t),
        **blocks("", t, geometry.text_depth),
        **_layer_norm("ln_final", t),
        "text_projection": (t, geometry.embed),
    }


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})

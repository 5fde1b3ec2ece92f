"""CLIP's vision transformer with OpenAI's parameter names, adapters and prompts (MODEL 4.1-4.3, 9).

Shapes: N = B*T frames in tracklet-major order, L tokens, d width, P prompt tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reid.errors import UserError
from reid.model.adapters import SpatialAdapter, TemporalAdapter, quick_gelu, split_heads


@dataclass(frozen=True)
class Geometry:
    """Sizes of both towers of a CLIP (MODEL section 4), and the activation of their MLPs."""

    width: int
    depth: int
    patch: int
    grid: int
    embed: int
    text_width: int
    text_depth: int
    context: int
    vocabulary: int
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"


VIT_B16 = Geometry(768, 12, 16, 14, 512, 512, 12, 77, 49408)
VIT_L14 = Geometry(1024, 24, 14, 16, 768, 768, 12, 77, 49408)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Mlp(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, L, d)."""
        out: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP, each with an optional adapter in parallel.

    The spatial adapter reads the residual stream after attention, the temporal one before it,
    both un-normalized; prompts are extra keys and values, not normalized and not in the stream.
    """

    def __init__(self, width: int, activation: str, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width)
        # For its parameters' names and initialization; `_attend` computes.
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, activation)
        self.spatial: SpatialAdapter | None = None
        self.temporal: TemporalAdapter | None = None

    def forward(
        self,
        x: Tensor,
        *,
        frames: int = 1,
        prompts: Tensor | None = None,
        class_only: bool = False,
        adapt: bool = True,
    ) -> Tensor:
        """(N, L, d) -> (N, L, d), or (N, 1, d) for the class token alone if `class_only`.

        `prompts` (B, P, d) serve the `frames` frames of their tracklet. `adapt=False` is plain
        CLIP, whatever adapters the block has.
        """
        count = 1 if class_only else x.shape[1]
        attended = self._attend(self.ln_1(x), count, prompts, frames)
        x = x[:, :count]
        if adapt and self.temporal is not None:
            attended = attended + self.temporal(x, frames)
        x = x + attended
        out: Tensor = x + self.mlp(self.ln_2(x))
        if adapt and self.spatial is not None:
            out = out + self.spatial(x)
        return out

    def _attend(self, y: Tensor, count: int, prompts: Tensor | None, frames: int) -> Tensor:
        """The first `count` tokens attend to all of (N, L, d) and the prompts: (N, count, d)."""
        d = y.shape[-1]
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q = F.linear(y[:, :count], weight[:d], bias[:d])
        kv = F.linear(y, weight[d:], bias[d:])
        if prompts is not None:
            # Projected once per tracklet, then shared by its frames.
            extra = F.linear(prompts, weight[d:], bias[d:])
            kv = torch.cat([kv, extra.repeat_interleave(frames, dim=0)], dim=1)
        q, k, v = map(split_heads, (q, *kv.chunk(2, dim=-1)))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.attn.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class Transformer(nn.Module):
    """A stack of blocks under the name OpenAI gives it: `resblocks`."""

    def __init__(self, width: int, depth: int, activation: str, *, causal: bool) -> None:
        super().__init__()
        blocks = [Block(width, activation, causal=causal) for _ in range(depth)]
        self.resblocks = nn.Sequential(*blocks)


@dataclass(frozen=True)
class FrameFeatures:
    """Class-token features of N frames."""

    last: Tensor
    """(N, d): residual stream before the last block; used by the triplet loss only."""
    final: Tensor
    """(N, d): after the last block and `ln_post`."""
    projected: Tensor
    """(N, e): `final` in the joint space of image and text."""


class VisualTower(nn.Module):
    """CLIP's image encoder for rectangular frames.

    `spatial` and `temporal` are the widths of both adapters of every block, 0 for none.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        height: int,
        width: int,
        stride: int,
        spatial: int = 0,
        temporal: int = 0,
    ) -> None:
        super().__init__()
        d = geometry.width
        self.rows = (height - geometry.patch) // stride + 1
        self.columns = (width - geometry.patch) // stride + 1
        if min(self.rows, self.columns) < 1:
            raise UserError(
                f"clip size {height} x {width} is smaller than the patch of the weights, "
                f"{geometry.patch}: raise clip.height and clip.width"
            )
        self.conv1 = nn.Conv2d(3, d, geometry.patch, stride, bias=False)
        self.class_embedding = nn.Parameter(d**-0.5 * torch.randn(d))
        positions = self.rows * self.columns + 1
        self.positional_embedding = nn.Parameter(d**-0.5 * torch.randn(positions, d))
        self.ln_pre = nn.LayerNorm(d)
        self.transformer = Transformer(d, geometry.depth, geometry.activation, causal=False)
        self.ln_post = nn.LayerNorm(d)
        self.proj = nn.Parameter(d**-0.5 * torch.randn(d, geometry.embed))
        self.checkpointing = False
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for block in self.blocks:
            block.spatial = SpatialAdapter(d, spatial) if spatial else None
            block.temporal = TemporalAdapter(d, temporal) if temporal else None

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer blocks, first to last."""
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def forward(
        self,
        images: Tensor,
        *,
        frames: int = 1,
        prompts: Sequence[Tensor] = (),
        adapt: bool = True,
    ) -> FrameFeatures:
        """Encode frames (N, 3, H, W), N = B * `frames` in tracklet-major order.

        `prompts`: one (B, P, d) per prompted block, from the first. The last block computes
        queries, MLP and adapters for the class token alone: nothing else of it is ever read.
        """
        x = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(x.shape[0], 1, -1).to(x.dtype)
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        *body, top = self.blocks
        banks = [*prompts, *[None] * (len(self.blocks) - len(prompts))]
        for block, bank in zip(body, banks, strict=False):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    block, x, frames=frames, prompts=bank, adapt=adapt, use_reentrant=False
                )
            else:
                x = block(x, frames=frames, prompts=bank, adapt=adapt)
        last = x[:, 0]
        x = top(x, frames=frames, prompts=banks[-1], class_only=True, adapt=adapt)
        final = self.ln_post(x[:, 0])
        return FrameFeatures(last, final, final @ self.proj)


def resize_positions(table: Tensor, rows: int, columns: int, mode: str) -> Tensor:
    """Resize a position table (1 + g*g, d) to (1 + rows*columns, d); the class row is kept.

    `bilinear` without antialiasing is the released code's, see MODEL section 4.1.
    """
    grid = math.isqrt(table.shape[0] - 1)
    if (rows, columns) == (grid, grid):
        return table
    square = table[1:].T.reshape(1, -1, grid, grid)
    resized = F.interpolate(square, size=(rows, columns), mode=mode, align_corners=False)
    return torch.cat([table[:1], resized.flatten(2)[0].T])

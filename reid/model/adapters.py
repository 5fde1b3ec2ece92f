"""Parameter-efficient adapters inside a transformer block (paper Sec. 3.1; MODEL 4.2).

Shapes: N = B*T frames in tracklet-major order, L tokens, d width, a bottleneck.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation x * sigmoid(1.702 x); by silu it keeps one tensor for backward, not two."""
    return F.silu(1.702 * x) / 1.702


def split_heads(x: Tensor) -> Tensor:
    """(..., L, d) -> (..., heads, L, 64)."""
    return x.reshape(*x.shape[:-1], -1, 64).transpose(-3, -2)


class SpatialAdapter(nn.Module):
    """Bottleneck over channels, parallel to the MLP: U q(D x + b) + b'."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, L, d)."""
        out: Tensor = self.up(quick_gelu(self.down(x)))
        return out


class TemporalAdapter(nn.Module):
    """Bottleneck with self-attention over the T frames of a tracklet at each token position.

    No norm, activation, position code or mask: frame order does not matter.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        # For its parameters' names and initialization; `forward` computes, batch-first.
        self.attn = nn.MultiheadAttention(bottleneck, bottleneck // 64)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, L, d) with T = `frames` -> (B*T, L, d)."""
        qkv = F.linear(self.down(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        by_position = qkv.view(-1, frames, *qkv.shape[1:]).transpose(1, 2)  # (B, L, T, 3a)
        q, k, v = map(split_heads, by_position.chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, L, heads, T, 64)
        merged = attended.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)
        out: Tensor = self.up(self.attn.out_proj(merged))
        return out

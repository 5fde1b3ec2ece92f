"""Parameter-efficient adapters inside a transformer block (paper Sec. 3.1; MODEL 4.2).

Shapes: N = B*T frames in tracklet-major order, L tokens, d width, a bottleneck.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.model.linear import by_onednn, linear


def through_quick_gelu(x: Tensor, first: nn.Linear, last: nn.Linear) -> Tensor:
    """Two layers around CLIP's activation z * sigmoid(1.702 z) = silu(1.702 z) / 1.702.

    Both factors are applied inside the matrix products where those can, and silu keeps one tensor
    for its backward: passes over the wide hidden tensor cost more than arithmetic.
    (..., d) -> (..., d').
    """
    inplace = not torch.is_grad_enabled()
    rows = x.flatten(0, -2)
    if by_onednn(rows):
        hidden = F.silu(linear(rows, first.weight, first.bias).mul_(1.702), inplace)
        out = linear(hidden, last.weight / 1.702, last.bias)
    else:
        hidden = torch.addmm(first.bias, rows, first.weight.t(), beta=1.702, alpha=1.702)
        out = torch.addmm(last.bias, F.silu(hidden, inplace), last.weight.t(), alpha=1 / 1.702)
    return out.view(*x.shape[:-1], -1)


class SpatialAdapter(nn.Module):
    """Bottleneck over channels, parallel to the MLP: U q(D x + b) + b'."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, L, d)."""
        return through_quick_gelu(x, self.down, self.up)


class TemporalAdapter(nn.Module):
    """Bottleneck with self-attention over the T frames of a tracklet at each token position.

    No norm, activation, position code or mask: frame order does not matter.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.heads = bottleneck // 64
        self.down = nn.Linear(width, bottleneck)
        # Holds the projections under the usual names and initialization; forward below calls
        # scaled_dot_product_attention itself, batch-first.
        self.attn = nn.MultiheadAttention(bottleneck, self.heads)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, L, d) with T = `frames` -> (B*T, L, d)."""
        count, tokens, _ = x.shape
        reduced = linear(x, self.down.weight, self.down.bias)
        qkv = linear(reduced, self.attn.in_proj_weight, self.attn.in_proj_bias)
        # (B, T, L, 3, heads, 64) -> three of (B, L, heads, T, 64)
        q, k, v = (
            qkv.view(count // frames, frames, tokens, 3, self.heads, 64)
            .permute(3, 0, 2, 4, 1, 5)
            .unbind()
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        merged = attended.permute(0, 3, 1, 2, 4).reshape(count, tokens, -1)
        mixed = linear(merged, self.attn.out_proj.weight, self.attn.out_proj.bias)
        return linear(mixed, self.up.weight, self.up.bias)

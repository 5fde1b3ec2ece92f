"""One transformer block for both CLIP towers, with OpenAI's parameter names (MODEL 4.2, 9).

Shapes: N = B*T frames in tracklet-major order, L tokens, d width, P prompt tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.model.adapters import SpatialAdapter, TemporalAdapter, quick_gelu


class Mlp(nn.Module):
    """Two linear layers around QuickGELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, L, d)."""
        out: Tensor = self.c_proj(quick_gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP, each with an optional adapter in parallel.

    The spatial adapter reads the residual stream after attention, the temporal one before it,
    both un-normalised; prompts are extra keys and values, not normalised and not in the stream.
    """

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads = width // 64
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, self.heads)  # names and initialisation only
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
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
        rows = x[:, :1] if class_only else x
        attended = self._attend(self.ln_1(x), prompts, frames, class_only)
        if adapt and self.temporal is not None:
            attended = attended + self.temporal(rows, frames)
        x = rows + attended
        out: Tensor = x + self.mlp(self.ln_2(x))
        if adapt and self.spatial is not None:
            out = out + self.spatial(x)
        return out

    def _attend(self, y: Tensor, prompts: Tensor | None, frames: int, class_only: bool) -> Tensor:
        count, _, width = y.shape
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        if class_only:
            q = F.linear(y[:, :1], weight[:width], bias[:width])
            k, v = F.linear(y, weight[width:], bias[width:]).chunk(2, dim=-1)
        else:
            q, k, v = F.linear(y, weight, bias).chunk(3, dim=-1)
        if prompts is not None:
            # Projected once per tracklet, then shared by its frames.
            extra = F.linear(prompts, weight[width:], bias[width:])
            extra_k, extra_v = extra.repeat_interleave(frames, dim=0).chunk(2, dim=-1)
            k, v = torch.cat([k, extra_k], dim=1), torch.cat([v, extra_v], dim=1)
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), is_causal=self.causal
        )
        out: Tensor = self.attn.out_proj(attended.transpose(1, 2).reshape(count, -1, width))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, heads, L, 64)."""
        return x.view(x.shape[0], x.shape[1], self.heads, 64).transpose(1, 2)


class Transformer(nn.Module):
    """A stack of blocks under the name OpenAI gives it: `resblocks`."""

    def __init__(self, width: int, depth: int, *, causal: bool = False) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, causal=causal) for _ in range(depth)))

"""One transformer block for both CLIP towers, with OpenAI's parameter names (MODEL 4.2, 9).

Shapes: N = B*T frames in tracklet-major order, L tokens, d width, P prompt tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.model.adapters import SpatialAdapter, TemporalAdapter, through_quick_gelu
from reid.model.linear import linear


class Mlp(nn.Module):
    """Two linear layers around QuickGELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, L, d)."""
        return through_quick_gelu(x, self.c_fc, self.c_proj)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with an optional adapter in parallel.

    The spatial adapter reads the residual stream after attention, the temporal one before it,
    both un-normalized; prompts are extra keys and values, not normalized and not in the stream.
    """

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads = width // 64
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, self.heads)  # names and initialization only
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
        attend = self._attend_first if class_only else self._attend
        attended = attend(self.ln_1(x), prompts, frames)
        if adapt and self.temporal is not None:
            attended = attended + self.temporal(rows, frames)
        x = rows + attended
        out: Tensor = x + self.mlp(self.ln_2(x))
        if adapt and self.spatial is not None:
            out = out + self.spatial(x)
        return out

    def _attend(self, y: Tensor, prompts: Tensor | None, frames: int) -> Tensor:
        count, _, width = y.shape
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q, k, v = linear(y, weight, bias).chunk(3, dim=-1)
        if prompts is not None:
            # Projected once per tracklet, then shared by its frames.
            extra = linear(prompts, weight[width:], bias[width:])
            extra_k, extra_v = extra.repeat_interleave(frames, dim=0).chunk(2, dim=-1)
            k, v = torch.cat([k, extra_k], dim=1), torch.cat([v, extra_v], dim=1)
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), is_causal=self.causal
        )
        merged = attended.transpose(1, 2).reshape(count, -1, width)
        return linear(merged, self.attn.out_proj.weight, self.attn.out_proj.bias)

    def _attend_first(self, y: Tensor, prompts: Tensor | None, frames: int) -> Tensor:
        """Attention of the first token only: (N, L, d) -> (N, 1, d).

        With one query per frame it is cheaper to carry the query through W_k than every token:
        q . (W_k y + b_k) = (q W_k) . y + a constant that softmax cancels. Likewise the weighted
        mean of the values is W_v of the weighted mean of the tokens. In float32: scores are not
        accumulated inside one kernel here.
        """
        with torch.autocast(y.device.type, enabled=False):
            tokens = y.float()
            if prompts is not None:
                extra = prompts.float().repeat_interleave(frames, dim=0)
                tokens = torch.cat([tokens, extra], dim=1)
            per_head = (3, self.heads, 64, tokens.shape[-1])
            w_q, w_k, w_v = self.attn.in_proj_weight.float().view(per_head)
            b_q, _, b_v = self.attn.in_proj_bias.float().view(3, self.heads, 64)
            q = torch.einsum("nd,hcd->nhc", tokens[:, 0], w_q) + b_q
            scores = torch.einsum("nhc,hcd->nhd", q, w_k) @ tokens.transpose(1, 2)
            mean = (scores / 8).softmax(dim=-1) @ tokens
            values = torch.einsum("nhd,hcd->nhc", mean, w_v) + b_v
        out: Tensor = self.attn.out_proj(values.flatten(1)[:, None])
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, d) -> (N, heads, L, 64)."""
        return x.view(x.shape[0], x.shape[1], self.heads, 64).transpose(1, 2)


class Transformer(nn.Module):
    """A stack of blocks under the name OpenAI gives it: `resblocks`."""

    def __init__(self, width: int, depth: int, *, causal: bool = False) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, causal=causal) for _ in range(depth)))

"""The visual tower: a thin ViT with OpenAI's parameter names (MODEL 4.1-4.3, 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reid.config import Adapters
from reid.errors import UserError
from reid.model.adapters import SpatialAdapter, TemporalAdapter
from reid.model.block import Block, Transformer
from reid.model.geometry import Geometry
from reid.model.weights import resize_positions


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
    """CLIP's image encoder for rectangular frames, with adapters and prompts."""

    def __init__(
        self, geometry: Geometry, *, height: int, width: int, stride: int, adapters: Adapters
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
        self.transformer = Transformer(d, geometry.depth)
        self.ln_post = nn.LayerNorm(d)
        self.proj = nn.Parameter(d**-0.5 * torch.randn(d, geometry.embed))
        self.checkpointing = False
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for block in self.blocks:
            if adapters.spatial:
                block.spatial = SpatialAdapter(d, adapters.width)
            if adapters.temporal:
                block.temporal = TemporalAdapter(d, adapters.width)

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer blocks, first to last."""
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def load(self, tensors: Mapping[str, Tensor], positions: str) -> None:
        """Load the tower's weights (names without `visual.`), resizing its positions.

        Every pre-trained tensor must be there and fit. Raises UserError naming those that do not.
        """
        own = self.state_dict()
        adapters = {name for name in own if ".spatial." in name or ".temporal." in name}
        given = dict(tensors)
        if "positional_embedding" in given:
            given["positional_embedding"] = resize_positions(
                given["positional_embedding"], self.rows, self.columns, positions
            )
        missing = sorted(own.keys() - adapters - given.keys())
        unexpected = sorted(given.keys() - own.keys())
        misshapen = sorted(
            name for name in given.keys() & own.keys() if given[name].shape != own[name].shape
        )
        for problem, names in (
            ("lack", missing),
            ("have unknown", unexpected),
            ("have misshapen", misshapen),
        ):
            if names:
                raise UserError(f"weights {problem} visual tensors: {', '.join(names[:5])}")
        self.load_state_dict(given, strict=False)

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

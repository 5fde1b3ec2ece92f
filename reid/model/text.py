"""The text tower and the learned identity contexts of stage 1 (MODEL 4.4)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reid.model.vit import Geometry, Transformer

# "P P P P P P P P X X X X P P P P P P P P ." as CLIP's tokenizer writes it; the context is
# padded with zeros to 77, but attention is causal, so nothing after the end token is read.
TOKENS = (49406, *[335] * 8, *[343] * 4, *[335] * 8, 269, 49407)
SHARED = 8
"""Learned tokens before and after the identity context, shared by all identities."""
IDENTITY = 4
"""Learned tokens of each identity."""


class TextTower(nn.Module):
    """CLIP's text encoder, from embeddings instead of token ids."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        d = geometry.text_width
        self.positional_embedding = nn.Parameter(torch.zeros(geometry.context, d))
        self.transformer = Transformer(d, geometry.text_depth, geometry.activation, causal=True)
        self.ln_final = nn.LayerNorm(d)
        self.text_projection = nn.Parameter(torch.zeros(d, geometry.embed))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (C, S, t) that end with the end token -> text features (C, e)."""
        x = embeddings + self.positional_embedding[: embeddings.shape[1]]
        x = self.transformer.resblocks(x)
        features: Tensor = self.ln_final(x[:, -1]) @ self.text_projection
        return features


class IdentityContexts(nn.Module):
    """The only part that stage 1 trains: shared prefix and suffix, four tokens per identity."""

    start: Tensor
    end: Tensor

    def __init__(self, classes: int, token_embedding: Tensor) -> None:
        super().__init__()
        width = token_embedding.shape[1]
        fixed = token_embedding[torch.tensor(TOKENS)]
        self.register_buffer("start", fixed[:1], persistent=False)
        self.register_buffer("end", fixed[1 + 2 * SHARED + IDENTITY :], persistent=False)
        self.prefix = nn.Parameter(0.02 * torch.randn(1, SHARED, width))
        self.identity = nn.Parameter(0.02 * torch.randn(classes, IDENTITY, width))
        self.suffix = nn.Parameter(0.02 * torch.randn(1, SHARED, width))

    def forward(self, labels: Tensor) -> Tensor:
        """Dense identity labels (B,) -> embeddings (B, 23, t) for the text tower."""
        count = labels.shape[0]
        shared = (self.start, self.prefix, self.suffix, self.end)
        start, prefix, suffix, end = (part.expand(count, -1, -1) for part in shared)
        return torch.cat([start, prefix, self.identity[labels], suffix, end], dim=1)


def build(
    tensors: Mapping[str, Tensor], geometry: Geometry, *, classes: int
) -> tuple[TextTower, IdentityContexts]:
    """The frozen text tower of CLIP weights, and fresh contexts for `classes` identities."""
    tower = TextTower(geometry)
    tower.load_state_dict({name: tensors[name] for name in tower.state_dict()})
    tower.requires_grad_(False)
    return tower, IdentityContexts(classes, tensors["token_embedding.weight"])

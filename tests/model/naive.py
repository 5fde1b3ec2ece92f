"""The mathematics of MODEL section 4, written naively, with the released code's tensor names.

A second implementation: the oracle of the tests of `load_reference_checkpoint`, and what the
speed benchmarks compare with. It does all the work the released code does: sequence-first
attention modules, prompts as queries too and their rows thrown away, every token through the last
block, the text tower (77 tokens) in every step, one optimizer group per tensor.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from reid.config import Losses
from reid.model.network import Features
from reid.model.text import TOKENS
from reid.model.vit import Geometry
from reid.train.losses import stage2_loss

WIDTH = 256
"""Of both adapters."""
LENGTH = 77
"""Of a tokenized sentence."""


def two_layers(width: int, hidden: int, first: str, last: str) -> nn.Sequential:
    """Linear, QuickGELU, linear under the given names."""
    layers = nn.Linear(width, hidden), QuickGELU(), nn.Linear(hidden, width)
    return nn.Sequential(OrderedDict(zip((first, "gelu", last), layers, strict=True)))


class AcrossFrames(nn.Module):
    """Attention over the T frames of a tracklet, for every token position by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temporal_attn = nn.MultiheadAttention(width, width // 64)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(L, B*T, a) -> (L, B*T, a)."""
        rows = x.unflatten(1, (-1, frames)).permute(2, 1, 0, 3)  # (T, B, L, a)
        flat = rows.flatten(1, 2)
        mixed = self.temporal_attn(flat, flat, flat, need_weights=False)[0].view_as(rows)
        return mixed.permute(2, 1, 0, 3).flatten(1, 2)


class NaiveBlock(nn.Module):
    """One block of either tower (MODEL 4.2), sequence first."""

    def __init__(self, width: int, *, adapters: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = two_layers(width, 4 * width, "c_fc", "c_proj")
        self.ln_2 = nn.LayerNorm(width)
        if adapters:
            self.dat = two_layers(width, WIDTH, "down", "up")
            across = {"down": nn.Linear(width, WIDTH), "up": nn.Linear(WIDTH, width)}
            self.dat_cross = nn.ModuleDict({**across, "temporal_block": AcrossFrames(WIDTH)})

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        prompts: Tensor | None = None,
        frames: int = 0,
    ) -> Tensor:
        """(L, N, d) -> (L, N, d); prompts (P, N, d); `frames` of zero is plain CLIP."""
        y = self.ln_1(x)
        if prompts is not None:
            y = torch.cat([y, prompts])
        attended = self.attn(y, y, y, need_weights=False, attn_mask=mask)[0][: len(x)]
        if not frames:
            x = x + attended
            return x + self.mlp(self.ln_2(x))
        between = self.dat_cross["temporal_block"](self.dat_cross["down"](x), frames)
        x = x + attended + self.dat_cross["up"](between)
        return x + self.mlp(self.ln_2(x)) + self.dat(x)


def stack(width: int, depth: int, *, adapters: bool) -> nn.ModuleDict:
    """Blocks under their released name."""
    blocks = nn.ModuleList(NaiveBlock(width, adapters=adapters) for _ in range(depth))
    return nn.ModuleDict({"resblocks": blocks})


class NaiveTower(nn.Module):
    """The visual tower on frames of one fixed size."""

    def __init__(self, sizes: Geometry, image_size: tuple[int, int], stride: int) -> None:
        super().__init__()
        rows, columns = ((side - sizes.patch) // stride + 1 for side in image_size)
        self.conv1 = nn.Conv2d(3, sizes.width, sizes.patch, stride, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(sizes.width))
        self.positional_embedding = nn.Parameter(torch.randn(rows * columns + 1, sizes.width))
        self.ln_pre = nn.LayerNorm(sizes.width)
        self.transformer = stack(sizes.width, sizes.depth, adapters=True)
        self.ln_post = nn.LayerNorm(sizes.width)
        self.proj = nn.Parameter(torch.randn(sizes.width, sizes.embed))

    def forward(self, images: Tensor, *, frames: int, banks: Tensor | None) -> tuple[Tensor, ...]:
        """(B*T, 3, H, W), banks (K, P, B*T, d) -> tokens before and after the last block."""
        x = self.conv1(images)
        x = x.reshape(*x.shape[:2], -1).permute(0, 2, 1)
        first = self.class_embedding + x.new_zeros(len(x), 1, x.shape[-1])
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        x = x.permute(1, 0, 2)
        before = x
        for number, block in enumerate(self.transformer["resblocks"]):
            before = x
            prompted = banks is not None and frames and number < len(banks)
            x = block(x, prompts=banks[number] if prompted else None, frames=frames)
        last = self.ln_post(x.permute(1, 0, 2))
        return before.permute(1, 0, 2), last, last @ self.proj


class Weighted(nn.Module):
    """Softmax over frames of a learned score, with the released bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 1)

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, C) -> (B, C)."""
        return (u * torch.softmax(self.fc(u), dim=1)).sum(dim=1)


class Contexts(nn.Module):
    """Learned sentences (MODEL 4.4), all 77 tokens of them."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_ctx = nn.Parameter(0.02 * torch.randn(classes, 4, width))
        self.prefix_prompt = nn.Parameter(0.02 * torch.randn(1, 8, width))
        self.suffix_prompt = nn.Parameter(0.02 * torch.randn(1, 8, width))
        self.register_buffer("token_prefix", torch.randn(1, 1, width))
        self.register_buffer("token_suffix", torch.randn(1, LENGTH - 21, width))

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) -> (B, 77, t)."""
        shared = (self.token_prefix, self.prefix_prompt, self.suffix_prompt, self.token_suffix)
        start, prefix, suffix, end = (part.expand(len(labels), -1, -1) for part in shared)
        return torch.cat([start, prefix, self.cls_ctx[labels], suffix, end], dim=1)


class NaiveText(nn.Module):
    """The text tower over all 77 tokens."""

    def __init__(self, sizes: Geometry) -> None:
        super().__init__()
        self.transformer = stack(sizes.text_width, sizes.text_depth, adapters=False)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, sizes.text_width))
        self.ln_final = nn.LayerNorm(sizes.text_width)
        self.text_projection = nn.Parameter(torch.randn(sizes.text_width, sizes.embed))

    def forward(self, sentences: Tensor) -> Tensor:
        """(B, 77, t) -> (B, e)."""
        x = (sentences + self.positional_embedding).permute(1, 0, 2)
        mask = torch.full((LENGTH, LENGTH), -torch.inf, device=x.device, dtype=x.dtype).triu(1)
        for block in self.transformer["resblocks"]:
            x = block(x, mask=mask)
        x = self.ln_final(x.permute(1, 0, 2))
        return x[:, len(TOKENS) - 1] @ self.text_projection


class Naive(nn.Module):
    """The whole model. `attention=False` is the official baseline, which pools by the mean."""

    def __init__(
        self,
        sizes: Geometry,
        *,
        classes: int,
        cameras: int,
        prompts: tuple[int, int] = (9, 4),
        image_size: tuple[int, int] = (256, 128),
        stride: int = 0,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.image_encoder = NaiveTower(sizes, image_size, stride or sizes.patch)
        depth, length = prompts
        self.cv_embed = nn.Parameter(0.02 * torch.randn(depth, length, cameras, sizes.width))
        if attention:
            self.temporal_attn = Weighted(sizes.width)
            self.temporal_attn_proj = Weighted(sizes.embed)
        self.attention = attention
        self.bottleneck = nn.BatchNorm1d(sizes.width)
        self.bottleneck_proj = nn.BatchNorm1d(sizes.embed)
        self.classifier = nn.Linear(sizes.width, classes, bias=False)
        self.classifier_proj = nn.Linear(sizes.embed, classes, bias=False)
        self.prompt_learner = Contexts(sizes.text_width, classes)
        self.text_encoder = NaiveText(sizes)

    def features(self, clips: Tensor, cameras: Tensor) -> Features:
        """Clips in the released loader's order (B, 3, T, H, W), cameras (B,)."""
        batch, _, frames, height, width = clips.shape
        images = clips.permute(0, 2, 1, 3, 4).reshape(batch * frames, 3, height, width)
        banks = self.cv_embed[:, :, cameras].repeat_interleave(frames, dim=2)
        before, last, projected = (
            tokens[:, 0].reshape(batch, frames, -1)
            for tokens in self.image_encoder(images, frames=frames, banks=banks)
        )
        if not self.attention:
            return Features(before.mean(dim=1), last.mean(dim=1), projected.mean(dim=1))
        return Features(
            self.temporal_attn(before), self.temporal_attn(last), self.temporal_attn_proj(projected)
        )

    def embed(self, clips: Tensor, cameras: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, d + e): what the released model returns in eval mode."""
        features = self.features(clips, cameras)
        return torch.cat([features.pooled, features.proj], dim=1)

    def text(self, labels: Tensor) -> Tensor:
        """(B,) -> (B, e)."""
        features: Tensor = self.text_encoder(self.prompt_learner(labels))
        return features

    def freeze(self) -> None:
        """Leave what the official baseline trains in stage 2, prompts included."""
        for name, parameter in self.named_parameters():
            text_side = name.startswith(("text_encoder", "prompt_learner"))
            tower = name.startswith("image_encoder") and "dat" not in name
            parameter.requires_grad_(not (text_side or tower))

    def loss(self, clips: Tensor, cameras: Tensor, labels: Tensor, bank: Tensor) -> Tensor:
        """Eq. 1 of a batch; goes through the text tower for the labels again."""
        features = self.features(clips, cameras)
        logits = (
            self.classifier(self.bottleneck(features.pooled)),
            self.classifier_proj(self.bottleneck_proj(features.proj)),
        )
        rows = self.text(labels)
        # As good as bank[labels], and used as such.
        bank = bank.index_copy(0, labels, rows.to(bank.dtype))
        return stage2_loss(features, logits, bank, labels, Losses()).total


def clip_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP tensors (OpenAI names, positions resized) under the names of `Naive`."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("visual."):
            renamed[f"image_encoder.{name.removeprefix('visual.')}"] = tensor
        elif name not in ("token_embedding.weight", "logit_scale"):
            renamed[f"text_encoder.{name}"] = tensor
    return renamed

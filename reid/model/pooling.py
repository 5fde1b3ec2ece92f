"""Frames to tracklet: mean, or learned temporal attention (paper Sec. 3.2.3, Eq. 2-4)."""

import torch
from torch import Tensor, nn

from reid.config import Pooling


class TemporalPool(nn.Module):
    """Weighted sum over frames; the weights are 1/T, or softmax_t(w . f_t [+ beta q_t])."""

    def __init__(self, width: int, options: Pooling) -> None:
        super().__init__()
        # No bias: softmax over frames cancels it.
        self.score = nn.Linear(width, 1, bias=False) if options.kind == "attention" else None
        self.beta = nn.Parameter(torch.zeros(())) if options.quality else None
        self.requires_grad_(options.train)

    def weights(self, features: Tensor, quality: Tensor | None = None) -> Tensor:
        """Frame weights alpha_t (Eq. 2-3). (B, T, C), quality (B, T) -> (B, T), rows sum to 1."""
        if self.score is None:
            return features.new_full(features.shape[:2], 1 / features.shape[1])
        scores = self.score(features)[..., 0]
        if self.beta is not None:
            if quality is None:
                raise ValueError("pooling by quality needs the heights of the original crops")
            scores = scores + self.beta * quality
        weights: Tensor = scores.softmax(dim=1)
        return weights

    def forward(self, features: Tensor, quality: Tensor | None = None) -> Tensor:
        """(B, T, C) -> (B, C) (Eq. 4)."""
        if self.score is None:
            return features.mean(dim=1)
        return (self.weights(features, quality)[..., None] * features).sum(dim=1)


def frame_quality(heights: Tensor) -> Tensor:
    """Quality q_t of QATW: log crop height, standardized over the frames of its tracklet.

    Scale is this dataset's axis of quality (an interpretation; MODEL section 6).
    (B, T) pixels -> (B, T); zero where all frames are equally high.
    """
    logs = heights.log()
    centered = logs - logs.mean(dim=1, keepdim=True)
    # The floor, about one pixel in a hundred, keeps rounding from being blown up.
    return centered / centered.square().mean(dim=1, keepdim=True).sqrt().clamp(min=0.01)

"""BNNeck: batch norm between a feature and its identity classifier (MODEL 4.3, 6)."""

import torch.nn.functional as F
from torch import Tensor, nn

from reid.config import Neck


class Head(nn.Module):
    """Classifier over identities behind a BNNeck; training only, retrieval uses its input."""

    def __init__(self, width: int, classes: int, options: Neck) -> None:
        super().__init__()
        self.instance_norm = options.instance_norm
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(options.train_bias)
        self.classifier = nn.Linear(width, classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width) -> logits (B, C)."""
        if self.instance_norm:  # (u - mean) / sqrt(var + 1e-5) over the channels of each sample
            features = F.layer_norm(features, features.shape[-1:], eps=1e-5)
        logits: Tensor = self.classifier(self.norm(features))
        return logits

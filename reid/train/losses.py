"""Losses of both stages (paper Eq. 1, Table 2; MODEL 4.5 and 4.6).

Shapes: B tracklets, C identities, e joint width, d tower width. All logits are float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from reid.config import Losses
from reid.model.network import Features


@dataclass(frozen=True)
class BatchLoss:
    """The weighted loss terms of a batch, and figures only to be logged; all scalars."""

    terms: Mapping[str, Tensor]
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    after_backward: Callable[[], None] | None = None
    """Finishes the gradient (reid.train.gradcache)."""

    @property
    def total(self) -> Tensor:
        """The loss: the sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


def contrastive(u: Tensor, v: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss of rows u against rows v, both with the same labels.

    -mean_i mean_{j: y_j = y_i} log softmax_j(u_i . v_j): raw dot products, temperature 1.
    u, v (B, e), labels (B,) -> scalar. Its floor is the mean log of an identity's rows in v.
    """
    log_likelihood = (u.float() @ v.float().T).log_softmax(dim=1)
    same = (labels[:, None] == labels).float()
    return -((same * log_likelihood).sum(dim=1) / same.sum(dim=1)).mean()


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Batch-hard triplet loss with cosine distance d = -cos (Hermans et al. 2017).

    Hardest positive among the same identity (the row itself included), hardest negative among
    the others (+1 if there are none): mean relu(ap - an + margin). (B, C), (B,) -> scalar.
    """
    unit = F.normalize(features.float(), dim=1)
    distance = -(unit @ unit.T)
    same = labels[:, None] == labels
    hardest_positive = distance.masked_fill(~same, -1.0).amax(dim=1)
    hardest_negative = distance.masked_fill(same, 1.0).amin(dim=1)
    return F.relu(hardest_positive - hardest_negative + margin).mean()


def stage2_loss(
    features: Features, logits: tuple[Tensor, Tensor], bank: Tensor, labels: Tensor, weights: Losses
) -> BatchLoss:
    """Eq. 1 with all eight terms of the baseline (MODEL 4.6).

    logits: of both heads, (B, C); bank (C, e): text features of all identities, frozen;
    labels (B,) dense identities. `accuracy` is the share of tracklets whose nearest text feature
    is their identity's.
    """
    smoothing = weights.label_smoothing

    def cross_entropy(scores: Tensor) -> Tensor:
        return F.cross_entropy(scores.float(), labels, label_smoothing=smoothing)

    proj = features.proj.float()
    text = bank[labels]
    to_bank = proj @ bank.T
    triplets = (features.last, features.pooled, features.proj)
    terms = {
        "identity": weights.identity * (cross_entropy(logits[0]) + cross_entropy(logits[1])),
        "triplet": weights.triplet
        * torch.stack([batch_hard_triplet(u, labels, weights.margin) for u in triplets]).sum(),
        "text_bank": weights.text_bank * cross_entropy(to_bank),
        "image_to_text": weights.image_to_text * contrastive(proj, text, labels),
        "text_to_image": weights.text_to_image * contrastive(text, proj, labels),
    }
    accuracy = (to_bank.detach().argmax(dim=1) == labels).float().mean()
    return BatchLoss(terms, {"accuracy": accuracy})

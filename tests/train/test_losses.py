"""Losses against slow float64 loops."""

import math

import pytest
import torch
from torch import Tensor

from reid.config import Losses
from reid.model.network import Features
from reid.train.losses import stage2_loss

Rows = list[list[float]]


def dot(u: list[float], v: list[float]) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def log_softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    total = top + math.log(sum(math.exp(score - top) for score in scores))
    return [score - total for score in scores]


def slow_contrastive(u: Rows, v: Rows, labels: list[int]) -> float:
    """-mean_i mean_{j: y_j = y_i} log softmax_j(u_i . v_j) (MODEL 4.5)."""
    losses = []
    for i, row in enumerate(u):
        likelihood = log_softmax([dot(row, other) for other in v])
        same = [likelihood[j] for j in range(len(v)) if labels[j] == labels[i]]
        losses.append(-sum(same) / len(same))
    return sum(losses) / len(losses)


def slow_triplet(u: Rows, labels: list[int], margin: float) -> float:
    """Batch-hard with D = -cos; the row itself is a positive; +1 without negatives (MODEL 4.6)."""
    losses = []
    for i, row in enumerate(u):
        distances = [-dot(row, other) / math.sqrt(dot(row, row) * dot(other, other)) for other in u]
        positive = max(distances[j] for j in range(len(u)) if labels[j] == labels[i])
        others = [distances[j] for j in range(len(u)) if labels[j] != labels[i]]
        losses.append(max(0.0, positive - min(others, default=1.0) + margin))
    return sum(losses) / len(losses)


def slow_cross_entropy(scores: Rows, labels: list[int], smoothing: float) -> float:
    """Target 1 - s + s / C on the label and s / C elsewhere."""
    losses = []
    for row, label in zip(scores, labels, strict=True):
        likelihood = log_softmax(row)
        spread = sum(likelihood) / len(row)
        losses.append(-(1 - smoothing) * likelihood[label] - smoothing * spread)
    return sum(losses) / len(losses)


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = {
    "pairs": [0, 0, 4, 4, 2, 2],
    "uneven": [4, 1, 1, 1, 0, 4],
    "singles": [5, 4, 3, 2, 1, 0],
    "one identity": [3, 3, 3, 3, 3, 3],
}


def stage2_inputs() -> tuple[Features, tuple[Tensor, Tensor], Tensor, Tensor]:
    features = Features(
        last=draw(6, 12, seed=10), pooled=draw(6, 12, seed=11), proj=draw(6, 8, seed=12)
    )
    logits = draw(6, 6, seed=13), draw(6, 6, seed=14)
    return features, logits, draw(6, 8, seed=15), torch.tensor([0, 0, 4, 4, 2, 2])


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(("smoothing", "margin"), [(0.0, 0.3), (0.1, 0.0), (0.5, 1.5)])
def test_stage2_has_all_eight_terms(labels: list[int], smoothing: float, margin: float) -> None:
    """Two CE, three triplets, the text-bank CE and both contrastive terms (MODEL 4.6)."""
    features, logits, bank, _ = stage2_inputs()
    scales = {
        "identity": 0.3, "triplet": 0.5, "text_bank": 0.7, "image_to_text": 1.1,
        "text_to_image": 1.3,
    }  # fmt: skip
    weights = Losses(label_smoothing=smoothing, margin=margin, **scales)
    result = stage2_loss(features, logits, bank, torch.tensor(labels), weights)
    texts, proj = bank.double().tolist(), features.proj.double().tolist()
    mine = [texts[label] for label in labels]
    to_bank = [[dot(row, text) for text in texts] for row in proj]
    every_feature = (features.last, features.pooled, features.proj)
    slow = {
        "identity": sum(
            slow_cross_entropy(scores.double().tolist(), labels, smoothing) for scores in logits
        ),
        "triplet": sum(slow_triplet(u.double().tolist(), labels, margin) for u in every_feature),
        "text_bank": slow_cross_entropy(to_bank, labels, smoothing),
        "image_to_text": slow_contrastive(proj, mine, labels),
        "text_to_image": slow_contrastive(mine, proj, labels),
    }
    slow = {name: scales[name] * value for name, value in slow.items()}
    assert {name: term.item() for name, term in result.terms.items()} == {
        name: pytest.approx(value, rel=1e-5, abs=1e-6) for name, value in slow.items()
    }
    assert result.total.item() == pytest.approx(sum(slow.values()), rel=1e-5)
    right = sum(row.index(max(row)) == label for row, label in zip(to_bank, labels, strict=True))
    assert result.figures["accuracy"].item() == pytest.approx(right / 6)


def test_half_precision_features_give_float32_losses() -> None:
    features, logits, bank, labels = stage2_inputs()
    half = Features(features.last.bfloat16(), features.pooled.bfloat16(), features.proj.bfloat16())
    same = Features(half.last.float(), half.pooled.float(), half.proj.float())
    low = tuple(scores.bfloat16() for scores in logits)
    high = tuple(scores.float() for scores in low)
    mixed = stage2_loss(half, low, bank, labels, Losses())  # type: ignore[arg-type]
    full = stage2_loss(same, high, bank, labels, Losses())  # type: ignore[arg-type]
    assert mixed.total.dtype == torch.float32
    torch.testing.assert_close(mixed.total, full.total, rtol=0, atol=0)

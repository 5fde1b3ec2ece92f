"""Gradient reaches exactly what a shipped training says is trainable; nothing else moves."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reid import config
from reid.config import FineTune, Stage2, Training
from reid.errors import UserError
from reid.model import network, text
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.train.losses import contrastive, stage2_loss
from reid.train.stage2 import trained_tensors
from tests.clips import TINY, random_weights

CONFIG = Path(__file__).parents[2] / "config"
ADAPTERS = r"visual\.transformer\.resblocks\.\d+\.(spatial|temporal)\..*"
NECKS, NECK_BIASES = r"head(_proj)?\.norm\.weight", r"head(_proj)?\.norm\.bias"
HEADS = r"head(_proj)?\.classifier\.weight"
CAMERAS, METADATA = r"prompts\.camera", r"prompts\.(altitude|distance|angle)"
POOLS, QUALITY = r"pool(_proj)?\.score\.weight", r"pool(_proj)?\.beta"
LAST_TWO = r"visual\.transformer\.resblocks\.[12]\.(ln_1|ln_2|attn|mlp)\..*"
PAPER = (ADAPTERS, NECKS, HEADS, CAMERAS, METADATA)
# Written by hand from the paper and MODEL sections 1 and 2, for three blocks.
TRAINS = {
    "baseline": PAPER,
    "optimized": PAPER,
    "attention": (*PAPER, POOLS),
    "scaled": (*PAPER, POOLS, QUALITY, LAST_TWO),
    "released": (ADAPTERS, NECKS, NECK_BIASES, HEADS),
}


def trainings() -> dict[str, Training]:
    return config.load([CONFIG / "config.yaml", CONFIG / "released.yaml"]).trainings


def small(training: Training) -> Training:
    """The same training around three blocks: prompts in all of them, narrow adapters."""
    model = training.model
    prompts = model.prompts.model_copy(update={"depth": 3})
    adapters = model.adapters.model_copy(update={"width": 64})
    tiny = model.model_copy(update={"prompts": prompts, "adapters": adapters, "stride": 0})
    return training.model_copy(update={"model": tiny})


def build(training: Training, seed: int = 0) -> VideoReID:
    torch.manual_seed(seed)
    return network.build(
        training.model,
        num_classes=4,
        num_cameras=3,
        weights=random_weights(TINY),
        image_size=(48, 32),
    )


def loss_of(model: VideoReID, training: Training) -> Tensor:
    """Eq. 1 on two identities, seen by all cameras, half of them with metadata."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(4, 3, 3, 48, 32, generator=generator)
    metadata = torch.tensor([[30.0, 40.0, 60.0], [80.0, 10.0, 30.0], *[[torch.nan] * 3] * 2])
    heights = 20 + 100 * torch.rand(4, 3, generator=generator)
    labels = torch.tensor([0, 0, 3, 3])
    features = model(clips, torch.tensor([1, 2, 0, 0]), metadata, heights)
    bank = torch.randn(4, TINY.embed, generator=generator)
    logits = model.classify(features)
    return stage2_loss(features, logits, bank, labels, training.stage2.losses).total


@pytest.mark.parametrize("name", TRAINS)
def test_gradient_reaches_exactly_what_trains(name: str) -> None:
    training = small(trainings()[name])
    model = build(training).train()
    groups = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    named = dict(model.named_parameters())
    expected = {n for n in named if any(re.fullmatch(pattern, n) for pattern in TRAINS[name])}
    for pattern in TRAINS[name]:
        assert any(re.fullmatch(pattern, n) for n in named), f"{pattern} matches nothing"
    assert {n for n, p in named.items() if p.requires_grad} == expected
    grouped = [n for group in groups for n in group.parameters]
    assert sorted(grouped) == sorted(expected)

    loss_of(model, training).backward()
    reached = {n for n, p in named.items() if p.grad is not None and bool(p.grad.any())}
    assert reached == expected

    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    torch.optim.Adam([{"params": list(g.parameters.values()), "lr": g.lr} for g in groups]).step()
    after = model.state_dict()
    moved = {n for n, tensor in after.items() if not torch.equal(tensor, before[n])}
    assert moved == expected


def test_more_blocks_than_there_are_is_an_error() -> None:
    model = build(small(trainings()["baseline"]))
    with pytest.raises(UserError, match=r"finetune\.blocks is 4 .* only 3"):
        trainable_groups(model, finetune=FineTune(blocks=4), stage2=Stage2())


def test_stage_1_moves_the_contexts_only() -> None:
    weights = random_weights(TINY)
    tower, contexts = text.build(weights.tensors, weights.geometry, classes=5)
    labels = torch.tensor([0, 0, 4, 4])
    images = torch.randn(4, TINY.embed, generator=torch.Generator().manual_seed(1))
    texts = tower(contexts(labels))
    (contrastive(images, texts, labels) + contrastive(texts, images, labels)).backward()
    assert not any(p.requires_grad for p in tower.parameters())
    gradients = {name: p.grad for name, p in contexts.named_parameters() if p.grad is not None}
    assert {name for name, gradient in gradients.items() if gradient.any()} == set(gradients)
    assert set(gradients) == {"prefix", "suffix", "identity"}
    touched = gradients["identity"].abs().sum(dim=(1, 2)).nonzero()[:, 0]
    assert touched.tolist() == [0, 4], "identities that are not in the batch do not learn"


def test_what_is_frozen_at_random_is_kept_with_the_weights() -> None:
    """A network of another seed has other prompts and pools: the file must bring its own."""
    training = trainings()["released"]
    released = small(training)
    inputs = torch.randn(2, 3, 3, 48, 32), torch.tensor([0, 2]), torch.full((2, 3), torch.nan)
    features, saved = [], {}
    for seed in (1, 2):
        model = build(released, seed)
        trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
        model.load_state_dict(saved, strict=False)
        saved = trained_tensors(model)
        with torch.inference_mode():
            features.append(model.eval().embed(*inputs))
    assert torch.equal(features[0], features[1])
    assert not any(name.startswith("visual.conv1") for name in saved)

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
from reid.model.param_groups import frozen_groups, trainable_groups
from reid.model.vit import VIT_B16, VIT_L14, Geometry
from reid.train.losses import contrastive, stage2_loss
from reid.train.params import stage_groups
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


def build(training: Training) -> VideoReID:
    torch.manual_seed(0)
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
    torch.optim.Adam(
        [
            {
                "params": list(group.parameters.values()),
                "lr": group.lr,
                "weight_decay": group.weight_decay,
            }
            for group in groups
        ]
    ).step()
    after = model.state_dict()
    moved = {n for n, tensor in after.items() if not torch.equal(tensor, before[n])}
    assert moved == expected


def test_a_row_of_a_zero_table_learns_only_from_its_own_bin() -> None:
    """Metadata tables start at zero; the rows that a batch names move, the others do not."""
    training = small(trainings()["baseline"])
    model = build(training).train()
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    loss_of(model, training).backward()
    assert model.prompts is not None
    tables = {"altitude": {4, 12, 18}, "distance": {6, 1, 18}, "angle": {1, 0, 3}}
    for name, rows in tables.items():
        table = model.prompts.get_parameter(name)
        assert not table.any()
        assert table.grad is not None
        touched = table.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0].tolist()
        assert set(touched) == rows, name


@pytest.mark.parametrize(("geometry", "last"), [(VIT_B16, (10, 11)), (VIT_L14, (22, 23))])
def test_last_blocks_are_named_by_depth(geometry: Geometry, last: tuple[int, int]) -> None:
    """The released code unfreezes 10 and 11 by name, the middle of an L/14 (MODEL headline 3)."""
    training = trainings()["scaled"]
    with torch.device("meta"):
        model = network.build(training.model, num_classes=9, num_cameras=3, weights=geometry)
    groups = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    blocks = [group for group in groups if group.name.startswith("blocks")]
    assert [group.name for group in blocks] == [
        f"blocks {last[0]}-{last[1]}",
        f"blocks {last[0]}-{last[1]} (bias)",
    ]
    numbers = {int(name.split(".")[3]) for group in blocks for name in group.parameters}
    assert numbers == set(last)
    assert [group.lr for group in blocks] == [pytest.approx(1e-5)] * 2


def test_rates_of_every_group() -> None:
    """Base 1e-4 with decay 2.5e-4; biases twice as fast with 1e-4; blocks at a tenth (Table 4)."""
    training = small(trainings()["scaled"])
    groups = trainable_groups(build(training), finetune=training.finetune, stage2=training.stage2)
    rates = {group.name: (group.lr, group.weight_decay) for group in groups}
    assert rates == {
        "adapters": (1e-4, 2.5e-4),
        "adapters (bias)": (2e-4, 1e-4),
        "camera prompts": (1e-4, 2.5e-4),
        "metadata prompts": (1e-4, 2.5e-4),
        "pools": (1e-4, 2.5e-4),
        "necks": (1e-4, 2.5e-4),
        "heads": (1e-4, 2.5e-4),
        "blocks 1-2": (pytest.approx(1e-5), 2.5e-4),
        "blocks 1-2 (bias)": (pytest.approx(1e-5), 1e-4),
    }


def test_frozen_groups_are_the_rest() -> None:
    training = small(trainings()["released"])
    model = build(training)
    groups = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    frozen = frozen_groups(model, groups)
    names = [name for group in (*groups, *frozen) for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert {group.name for group in frozen} == {"camera prompts", "pools", "tower"}


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
    assert {name for name, _ in contexts.named_parameters()} == {"prefix", "suffix", "identity"}
    assert contexts.prefix.grad is not None
    assert contexts.prefix.grad.any()
    assert contexts.suffix.grad is not None
    assert contexts.suffix.grad.any()
    assert contexts.identity.grad is not None
    touched = contexts.identity.grad.abs().sum(dim=(1, 2)).nonzero()[:, 0]
    assert touched.tolist() == [0, 4], "identities that are not in the batch do not learn"


def sizes(name: str, geometry: Geometry) -> dict[str, int]:
    """Trained parameters of stage 2 by part, weights and biases together."""
    found: dict[str, int] = {}
    for group in stage_groups(trainings()[name], geometry, 185, 3)["stage 2"]:
        part = group.name.split()[0] if "blocks" in group.name else group.name
        part = part.removesuffix(" (bias)")
        if group.lr:
            found[part] = found.get(part, 0) + group.size
    return found


@pytest.mark.parametrize(
    ("name", "geometry", "expected"),
    [
        # MODEL section 5; metadata tables are 9 blocks x P x (19 + 19 + 4) rows x d.
        (
            "baseline",
            VIT_B16,
            {
                "adapters": 12_619_776,
                "camera prompts": 82_944 // 4,
                "metadata prompts": 9 * 1 * 42 * 768,
                "necks": 2_560 // 2,
                "heads": 236_800,
            },
        ),
        (
            "scaled",
            VIT_L14,
            {
                "adapters": 31_543_296,
                "camera prompts": 110_592,
                "metadata prompts": 9 * 4 * 42 * 1024,
                "pools": 1_792 + 2,
                "necks": 3_584 // 2,
                "heads": 331_520,
                "blocks": 25_192_448,
            },
        ),
        (
            "released",
            VIT_B16,
            {"adapters": 12_619_776, "necks": 2_560, "heads": 236_800},
        ),
    ],
)
def test_params_match_the_published_sizes(
    name: str, geometry: Geometry, expected: dict[str, int]
) -> None:
    assert sizes(name, geometry) == expected
    if name == "released":
        assert round(sum(expected.values()) / 1e6, 2) == 12.86


@pytest.mark.parametrize(("geometry", "size"), [(VIT_B16, 387_072), (VIT_L14, 580_608)])
def test_params_of_stage_1(geometry: Geometry, size: int) -> None:
    contexts, tower = stage_groups(trainings()["scaled"], geometry, 185, 3)["stage 1"]
    assert (contexts.name, contexts.size, contexts.lr) == ("contexts", size, 2e-4)
    assert (tower.name, tower.lr) == ("text tower", 0.0)


def test_what_is_frozen_at_random_is_kept_with_the_weights() -> None:
    """A network of another seed has other prompts and pools: the file must bring its own."""
    training = trainings()["released"]
    released = small(training)
    inputs = torch.randn(2, 3, 3, 48, 32), torch.tensor([0, 2]), torch.full((2, 3), torch.nan)
    features, saved = [], {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = network.build(
            released.model,
            num_classes=2,
            num_cameras=3,
            weights=random_weights(TINY),
            image_size=(48, 32),
        )
        trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
        model.load_state_dict(saved, strict=False)
        saved = trained_tensors(model)
        with torch.inference_mode():
            features.append(model.eval().embed(*inputs))
    assert torch.equal(features[0], features[1])
    assert not any(name.startswith("visual.conv1") for name in saved)

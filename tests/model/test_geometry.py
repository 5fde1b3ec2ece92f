"""Shapes at the true sizes of ViT-B/16 and ViT-L/14 (MODEL section 5), and one step of stage 2.

Numbers of parameters are in tests/train/test_params.py, features in test_parity.py.
"""

from pathlib import Path

import pytest
import torch

from reid.config import FineTune, Model, Pooling, Prompts, Stage2, load
from reid.model import network, text
from reid.model.param_groups import trainable_groups
from reid.model.vit import VIT_B16, VIT_L14, Geometry
from reid.train.losses import stage2_loss
from tests.clips import TINY, random_weights

ROOT = Path(__file__).parents[2]
POOLING = Pooling(kind="attention", quality=True)


@pytest.mark.parametrize(
    ("geometry", "grid", "width"),
    [(VIT_B16, (16, 8), 1280), (VIT_L14, (18, 9), 1792)],
    ids=["B/16", "L/14"],
)
def test_features_of_the_true_sizes(geometry: Geometry, grid: tuple[int, int], width: int) -> None:
    with torch.device("meta"), torch.no_grad():
        model = network.build(Model(), num_classes=3, num_cameras=3, weights=geometry)
        tokens = []
        model.visual.blocks[1].register_forward_hook(lambda _, args, out: tokens.append(out.shape))
        features = model.embed(
            torch.empty(2, 4, 3, 256, 128), torch.zeros(2).long(), torch.empty(2, 3)
        )
    assert (model.visual.rows, model.visual.columns) == grid
    assert tokens == [(2 * 4, 1 + grid[0] * grid[1], geometry.width)]
    assert features.shape == (2, width)


def test_the_released_code_trains_12_86_million() -> None:
    """Adapters, heads, necks with their bias; prompts and pools are frozen (MODEL headline 2)."""
    files = [ROOT / "config" / name for name in ("config.yaml", "released.yaml")]
    released = load(files).trainings["released"]
    with torch.device("meta"):
        model = network.build(released.model, num_classes=185, num_cameras=3, weights=VIT_B16)
    groups = trainable_groups(model, finetune=released.finetune, stage2=released.stage2)
    assert sum(group.size for group in groups) == 12_859_136


@pytest.mark.parametrize("frames", [1, 3])
def test_one_step_moves_all_that_trains(frames: int) -> None:
    """Two identities, two tracklets each."""
    weights, size = random_weights(TINY), (64, 32)
    torch.manual_seed(0)
    options = Model(prompts=Prompts(length=4, depth=2), pooling=POOLING)
    model = network.build(
        options, num_classes=3, num_cameras=3, weights=weights, image_size=size
    ).train()
    tower, contexts = text.build(weights.tensors, weights.geometry, classes=3)
    groups = trainable_groups(model, finetune=FineTune(blocks=2), stage2=Stage2())
    learned = {name: p for group in groups for name, p in group.parameters.items()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    metadata = torch.tensor([[30.0, 40.0, 60.0]] * 2 + [[torch.nan] * 3] * 2)
    heights, labels = torch.rand(4, frames) * 100 + 20, torch.tensor([0, 0, 2, 2])
    clips, cameras = torch.randn(4, frames, 3, *size), torch.tensor([1, 2, 0, 0])
    features = model(clips, cameras, metadata, heights)
    with torch.no_grad():
        bank = tower(contexts(torch.arange(3)))
    stage2_loss(features, model.classify(features), bank, labels, Stage2().losses).total.backward()
    torch.optim.Adam([{"params": list(g.parameters.values()), "lr": g.lr} for g in groups]).step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # Softmax over a single frame has no slope.
    single = {"pool.score.weight", "pool_proj.score.weight", "pool.beta", "pool_proj.beta"}
    assert moved == learned.keys() - (single if frames == 1 else set())

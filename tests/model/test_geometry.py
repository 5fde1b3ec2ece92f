"""True ViT-B/16 and ViT-L/14: every size of MODEL section 5, one step, one extraction batch."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from reid.config import FineTune, Model, Pooling, Prompts, Stage2
from reid.model import network, text
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.text import IdentityContexts, TextTower
from reid.model.vit import VIT_B16, VIT_L14, Geometry
from reid.train.losses import stage2_loss
from tests.clips import random_weights

CLASSES = 185
"""The number of identities that MODEL section 5 counts with."""
CAMERA_ONLY = Model(prompts=Prompts(length=4, metadata=False), pooling=Pooling(kind="attention"))


class Sizes(NamedTuple):
    """A column of the table in MODEL section 5."""

    geometry: Geometry
    tokens: int
    grid: tuple[int, int]
    visual: int
    block: int
    last_two: int
    spatial: int
    temporal: int
    adapters: int
    prompts: dict[int, int]
    pools: int
    necks: int
    heads: int
    text_tower: int
    contexts: int
    inference: int
    paper_millions: float


B16 = Sizes(
    VIT_B16, 129, (16, 8), 86_140_416, 7_087_872, 14_175_744, 394_240, 657_408, 12_619_776,
    {38: 1_050_624, 3: 82_944}, 1_282, 2_560, 236_800, 38_131_200, 387_072, 1280, 27.1,
)  # fmt: skip
L14 = Sizes(
    VIT_L14, 163, (18, 9), 303_869_952, 12_596_224, 25_192_448, 525_568, 788_736, 31_543_296,
    {38: 1_400_832, 3: 110_592}, 1_794, 3_584, 331_520, 85_704_960, 580_608, 1792, 57.2,
)  # fmt: skip
both = pytest.mark.parametrize("sizes", [B16, L14], ids=["B/16", "L/14"])


def count(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def shapes_only(sizes: Sizes, cameras: int = 3) -> VideoReID:
    counts = {"num_classes": CLASSES, "num_cameras": cameras}
    with torch.device("meta"):
        return network.build(CAMERA_ONLY, weights=sizes.geometry, **counts)


@both
def test_visual_side_has_the_published_sizes(sizes: Sizes) -> None:
    model = shapes_only(sizes)
    tower, blocks = model.visual, model.visual.blocks
    adapters = [adapter for block in blocks for adapter in (block.spatial, block.temporal)]
    assert (tower.rows, tower.columns) == sizes.grid
    assert tower.positional_embedding.shape[0] == sizes.tokens
    assert count(tower) - count(*adapters) == sizes.visual
    per_block = [count(block) - count(block.spatial, block.temporal) for block in blocks]
    assert per_block == [sizes.block] * sizes.geometry.depth
    assert sum(per_block[-2:]) == sizes.last_two
    assert {count(block.spatial) for block in blocks} == {sizes.spatial}
    assert {count(block.temporal) for block in blocks} == {sizes.temporal}
    assert count(*adapters) == sizes.adapters
    for cameras, parameters in sizes.prompts.items():
        assert count(shapes_only(sizes, cameras=cameras).prompts) == parameters
    # Two pools score a feature of d and one of e numbers; the released ones add a bias each,
    # which softmax over frames cancels and which we do not have.
    assert count(model.pool, model.pool_proj) == sizes.pools - 2
    assert count(model.head.norm, model.head_proj.norm) == sizes.necks
    assert count(model.head.classifier, model.head_proj.classifier) == sizes.heads


@both
def test_text_side_has_the_published_sizes(sizes: Sizes) -> None:
    with torch.device("meta"):
        tower = TextTower(sizes.geometry)
        embedding = torch.empty(sizes.geometry.vocabulary, sizes.geometry.text_width)
        contexts = IdentityContexts(CLASSES, embedding)
    # The published count has all 77 positions, the final norm and the projection, but not the
    # token embedding, of which only seven rows are ever read.
    assert count(tower) == sizes.text_tower
    assert count(contexts) == sizes.contexts


def test_released_code_trains_12_86_million() -> None:
    """Adapters, heads, necks with their bias; prompts and pools frozen (MODEL headline 2)."""
    assert B16.adapters + B16.heads + B16.necks == 12_859_136


@both
def test_paper_reading_trains(sizes: Sizes) -> None:
    """Two unfrozen blocks, camera prompts, pools, adapters, heads, BN weights."""
    model = shapes_only(sizes)
    groups = trainable_groups(model, finetune=FineTune(blocks=2), stage2=Stage2())
    size = sum(group.size for group in groups)
    learned = (sizes.prompts[3], sizes.pools - 2, sizes.adapters, sizes.heads, sizes.necks // 2)
    assert size == sizes.last_two + sum(learned)
    assert round(size / 1e6, 1) == sizes.paper_millions


@pytest.fixture(scope="module", params=[B16, L14], ids=["B/16", "L/14"])
def built(request: pytest.FixtureRequest) -> tuple[Sizes, VideoReID, Tensor]:
    """A network around random weights, and the text bank of three identities."""
    sizes: Sizes = request.param
    weights = random_weights(sizes.geometry)
    torch.manual_seed(0)
    options = Model(prompts=Prompts(length=4), pooling=Pooling(kind="attention", quality=True))
    model = network.build(options, num_classes=3, num_cameras=3, weights=weights)
    tower, contexts = text.build(weights.tensors, weights.geometry, classes=3)
    with torch.no_grad():
        bank = tower(contexts(torch.arange(3)))
    return sizes, model, bank


def test_extraction_batch(built: tuple[Sizes, VideoReID, Tensor]) -> None:
    sizes, model, bank = built
    assert bank.shape == (3, sizes.geometry.embed)
    frames = 2 if sizes is B16 else 1
    clips = torch.randn(1, frames, 3, 256, 128, generator=torch.Generator().manual_seed(2))
    seen: list[torch.Size] = []
    hook = model.visual.blocks[1].register_forward_hook(lambda _, args, out: seen.append(out.shape))
    with torch.inference_mode():
        features = model.eval().embed(
            clips, torch.tensor([1]), torch.tensor([[30.0, 40.0, 60.0]]), torch.full((1, 2), 40.0)
        )
    hook.remove()
    assert seen == [(frames, sizes.tokens, sizes.geometry.width)]
    assert features.shape == (1, sizes.inference)
    assert features.isfinite().all()
    assert features.std() > 0.1


def test_one_optimizer_step(built: tuple[Sizes, VideoReID, Tensor]) -> None:
    """A whole stage-2 step: two identities, two tracklets each."""
    sizes, model, bank = built
    frames = 2 if sizes is B16 else 1
    groups = trainable_groups(model.train(), finetune=FineTune(blocks=2), stage2=Stage2())
    learned = {name: p for group in groups for name, p in group.parameters.items()}
    optimizer = torch.optim.Adam(
        [{"params": list(g.parameters.values()), "lr": g.lr} for g in groups]
    )
    generator = torch.Generator().manual_seed(3)
    clips = torch.randn(4, frames, 3, 256, 128, generator=generator)
    metadata = torch.tensor([[30.0, 40.0, 60.0]] * 2 + [[torch.nan] * 3] * 2)
    heights = torch.rand(4, frames, generator=generator) * 100 + 20
    labels = torch.tensor([0, 0, 2, 2])
    features = model(clips, torch.tensor([1, 2, 0, 0]), metadata, heights)
    loss = stage2_loss(features, model.classify(features), bank, labels, Stage2().losses).total
    loss.backward()
    before = {name: p.detach().clone() for name, p in learned.items()}
    optimizer.step()
    assert loss.isfinite()
    still = {name for name, p in learned.items() if torch.equal(p, before[name])}
    # Softmax over a single frame has no slope.
    single = {"pool.score.weight", "pool_proj.score.weight", "pool.beta", "pool_proj.beta"}
    assert still == (single if frames == 1 else set())

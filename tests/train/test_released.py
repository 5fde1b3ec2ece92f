"""The `released` preset against the released code's own settings (MODEL sections 1 to 3)."""

from pathlib import Path

import pytest
import torch

from reid import config
from reid.config import Config
from reid.model import network
from reid.model.param_groups import trainable_groups
from reid.train.schedule import learning_rate
from reid.train.stage2 import trained_tensors
from tests.clips import TINY, random_weights

FOLDER = Path(__file__).parents[2] / "config"


@pytest.fixture(scope="module")
def settings() -> Config:
    return config.load([FOLDER / "config.yaml", FOLDER / "released.yaml"])


def test_departures_from_the_paper(settings: Config) -> None:
    released, paper = settings.trainings["released"], settings.trainings["attention"]
    # Headline 2: neither prompts nor temporal attention ever train.
    assert (released.model.prompts.train, released.model.pooling.train) == (False, False)
    assert (paper.model.prompts.train, paper.model.pooling.train) == (True, True)
    # Headline 3: no block is ever unfrozen. Headline 5: no metadata.
    assert released.finetune.blocks == 0
    assert not released.model.prompts.metadata
    # Headline 6: flags that nothing reads.
    assert not released.model.pooling.quality
    assert not released.model.neck.instance_norm
    assert released.augment.pad == 0
    # Section 2: PBP length 4, BN bias on, 3.5e-4 and 20 epochs, raw features in re-ranking.
    assert released.model.prompts.length == 4
    assert released.model.neck.train_bias
    assert not paper.model.neck.train_bias
    assert (released.stage1.lr, paper.stage1.lr) == (3.5e-4, 2e-4)
    assert (released.stage2.epochs, paper.stage2.epochs) == (20, 40)
    rerank = settings.variants["released"].rerank
    assert rerank is not None
    assert (rerank.k1, rerank.k2, rerank.lambda_value) == (28, 6, 0.28)
    assert (rerank.normalize, rerank.form) == (False, "released")


def test_what_paper_and_code_agree_on(settings: Config) -> None:
    released, paper = settings.trainings["released"], settings.trainings["attention"]
    assert released.clip == paper.clip
    assert released.model.positions == "bilinear"
    assert released.model.adapters == paper.model.adapters
    assert released.model.pooling.kind == "attention"
    assert released.stage2.losses == paper.stage2.losses
    assert released.augment.color_jitter == paper.augment.color_jitter
    assert (released.augment.flip, released.augment.erase) == (0.5, 0.5)
    assert released.augment.color_jitter.per == "frame"
    assert (released.stage1.batch_size, released.stage1.epochs) == (48, 50)
    assert (released.stage2.batch_size, released.stage2.instances) == (24, 8)
    assert (released.stage1.instances, released.stage1.view) == (8, "augmented")


@pytest.mark.parametrize(
    ("stage", "by_hand"),
    [
        # 1e-6 + (base - 1e-6) / 2 (1 + cos(pi n / N)), both stages down to stage 1's LR_MIN.
        (1, {0: 3.5e-4, 25: 1.755e-4, 49: 1e-6 + 1.745e-4 * 0.0019733}),
        (2, {0: 1e-4, 10: 5.05e-5, 19: 1e-6 + 0.495e-4 * 0.0123117}),
    ],
)
def test_rates_by_hand(settings: Config, stage: int, by_hand: dict[int, float]) -> None:
    released = settings.trainings["released"]
    options = released.stage1 if stage == 1 else released.stage2
    for epoch, rate in by_hand.items():
        found = learning_rate(options.schedule, options.lr, epoch, options.epochs)
        assert found == pytest.approx(rate, rel=1e-5)


def test_what_is_frozen_at_random_is_kept_with_the_weights(settings: Config) -> None:
    """A network of another seed has other prompts and pools: the file must bring its own."""
    training = settings.trainings["released"]
    small = training.model.model_copy(
        update={"prompts": training.model.prompts.model_copy(update={"depth": 2})}
    )
    inputs = torch.randn(2, 3, 3, 48, 32), torch.tensor([0, 2]), torch.full((2, 3), torch.nan)
    features, saved = [], {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = network.build(
            small, num_classes=2, num_cameras=3, weights=random_weights(TINY), image_size=(48, 32)
        )
        trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
        model.load_state_dict(saved, strict=False)
        saved = trained_tensors(model)
        with torch.inference_mode():
            features.append(model.eval().embed(*inputs))
    assert torch.equal(features[0], features[1])
    assert not any(name.startswith("visual.conv1") for name in saved)

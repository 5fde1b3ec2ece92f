"""Learning rates of the shipped trainings by epoch, against tables computed by hand.

Paper, Table 2 and Sec. 3.1 (baseline) and Table 4 (optimized); MODEL section 2 for what they leave
open: the baseline's warm-ups, and that its schedule is stepped before an epoch.
"""

from pathlib import Path

import pytest

from reid import config
from reid.config import Schedule, Training
from reid.train.schedule import learning_rate

CONFIG = Path(__file__).parents[2] / "config"
OPTIMIZED = ("optimized", "attention", "scaled")


@pytest.fixture(scope="module")
def trainings() -> dict[str, Training]:
    return config.load([CONFIG / "config.yaml", CONFIG / "released.yaml"]).trainings


# Trainings, stage, number of epochs, and by epoch (from 0) its learning rate.
RATES: list[tuple[tuple[str, ...], int, int, dict[int, float]]] = [
    # Linear from 1e-5 to 3.5e-4 over 5 epochs: 1e-5 + 6.8e-5 n at the n-th epoch from 1. Then
    # 1e-6 + 1.745e-4 (1 + cos(pi n / 120)); cos(7.5 deg) = 0.9914449, cos(120 deg) = -0.5.
    (("baseline",), 1, 120, {0: 7.8e-5, 1: 1.46e-4, 3: 2.82e-4, 4: 1e-6 + 1.745e-4 * 1.9914449,
                             59: 1.755e-4, 79: 1e-6 + 1.745e-4 * 0.5, 119: 1e-6}),
    # (0.1 + 0.09 n) 1e-4 for n < 10, then 1e-4, a tenth from n = 60, a hundredth from n = 90.
    (("baseline",), 2, 120, {0: 1.9e-5, 4: 5.5e-5, 8: 9.1e-5, 9: 1e-4, 58: 1e-4, 59: 1e-5,
                             88: 1e-5, 89: 1e-6, 119: 1e-6}),
    # 1e-6 + 0.995e-4 (1 + cos(pi n / 50)); cos(pi / 5) = 0.8090170, cos(0.98 pi) = -0.9980267.
    (OPTIMIZED, 1, 50, {0: 2e-4, 10: 1e-6 + 0.995e-4 * 1.8090170, 25: 1.005e-4,
                        49: 1e-6 + 0.995e-4 * 0.0019733}),
    # 1e-6 + 0.495e-4 (1 + cos(pi n / 40)); cos(pi / 4) = 0.7071068, cos(39 pi / 40) = -0.9969173.
    (OPTIMIZED, 2, 40, {0: 1e-4, 10: 1e-6 + 0.495e-4 * 1.7071068, 20: 5.05e-5,
                        39: 1e-6 + 0.495e-4 * 0.0030827}),
    # As optimized, from 3.5e-4 in stage 1, over 20 epochs in stage 2; cos(0.95 pi) = -0.9876883.
    (("released",), 1, 50, {0: 3.5e-4, 25: 1.755e-4, 49: 1e-6 + 1.745e-4 * 0.0019733}),
    (("released",), 2, 20, {0: 1e-4, 10: 5.05e-5, 19: 1e-6 + 0.495e-4 * 0.0123117}),
]  # fmt: skip


@pytest.mark.parametrize(("names", "stage", "epochs", "by_hand"), RATES)
def test_rates_by_hand(
    trainings: dict[str, Training],
    names: tuple[str, ...],
    stage: int,
    epochs: int,
    by_hand: dict[int, float],
) -> None:
    for name in names:
        options = trainings[name].stage1 if stage == 1 else trainings[name].stage2
        assert options.epochs == epochs
        for epoch, rate in by_hand.items():
            computed = learning_rate(options.schedule, options.lr, epoch, epochs)
            assert computed == pytest.approx(rate, rel=1e-5), f"{name}, epoch {epoch}"


def test_other_settings_are_those_of_the_tables(trainings: dict[str, Training]) -> None:
    """Paper, Table 2 for the baseline, Table 4 and Sec. 3.2.4 for the others."""
    for name in ("baseline", *OPTIMIZED):
        first, second = trainings[name].stage1, trainings[name].stage2
        optimized = name != "baseline"
        assert first.batch_size == (48 if optimized else 16)
        assert second.batch_size == (24 if optimized else 16)
        assert (first.lr, second.lr) == ((2e-4, 1e-4) if optimized else (3.5e-4, 1e-4))
        assert (first.weight_decay, second.weight_decay) == (1e-4, 2.5e-4)
        assert (second.bias_weight_decay, second.bias_lr_multiplier) == (1e-4, 2.0)
        assert second.losses.identity == 0.25
        others = second.losses.model_dump(exclude={"identity", "label_smoothing", "margin"})
        assert set(others.values()) == {1.0}
        assert (second.losses.label_smoothing, second.losses.margin) == (0.1, 0.3)
    lengths = {name: trainings[name].model.prompts.length for name in ("baseline", *OPTIMIZED)}
    assert lengths == {"baseline": 1, "optimized": 1, "attention": 1, "scaled": 4}


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
@pytest.mark.parametrize("stepped", ["before", "after"])
def test_warm_up_rises_to_the_base_and_never_beyond(kind: str, stepped: str) -> None:
    steps = {"steps": (9,)} if kind == "multistep" else {}
    options = Schedule.model_validate(
        {"kind": kind, "stepped": stepped, "warmup_epochs": 4, "warmup_factor": 0.2, **steps}
    )
    table = [learning_rate(options, 1e-3, epoch, 12) for epoch in range(12)]
    first = 4 - (stepped == "before")
    assert table[:first] == sorted(table[:first])
    assert table[0] == pytest.approx(2e-4 if stepped == "after" else 4e-4)
    assert max(table) <= 1e-3
    assert table[first:] == sorted(table[first:], reverse=True)

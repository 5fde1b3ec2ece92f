"""The training loop against Adam, schedule and weight decay written out by hand in float64."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reid.config import Runtime, Schedule
from reid.errors import Stopped, Unresumable
from reid.model.param_groups import Group
from reid.train.checkpoint import Checkpoints
from reid.train.interrupt import Interrupt
from reid.train.loop import Stage, fit
from reid.train.losses import BatchLoss
from reid.train.session import Engine

EPOCHS, STEPS = 4, 3
RATES = {"weights": (0.1, 0.02), "biases": (0.2, 0.3)}
SCHEDULE = Schedule(kind="cosine", min_lr=0.01, warmup_epochs=0, stepped="after")
START = {"weights": [1.0, -2.0, 0.5], "biases": [3.0, -1.0]}


def target(epoch: int, step: int) -> float:
    return math.sin(1 + 7 * epoch + step)


def gradients(p: dict[str, np.ndarray], x: float) -> dict[str, np.ndarray]:
    """Of sum((w - x)^2) + 3 x sum(b)^2."""
    w, b = p["weights"], p["biases"]
    return {"weights": 2 * (w - x), "biases": 6 * x * b.sum() * np.ones_like(b)}


def by_hand() -> tuple[dict[str, np.ndarray], list[dict[str, float]], list[dict[str, float]]]:
    """Final parameters, norms of every step, rates of every epoch."""
    p = {name: np.array(values) for name, values in START.items()}
    m, v = ({name: np.zeros_like(values) for name, values in p.items()} for _ in range(2))
    norms, rates, t = [], [], 0
    for epoch in range(EPOCHS):
        cosine = (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        rate = {name: 0.01 + (lr - 0.01) * cosine for name, (lr, _) in RATES.items()}
        rates.append(rate)
        for step in range(STEPS):
            t += 1
            g = gradients(p, target(epoch, step))
            norms.append({name: float(np.linalg.norm(values)) for name, values in g.items()})
            for name, (_, decay) in RATES.items():
                total = g[name] + decay * p[name]
                m[name] = 0.9 * m[name] + 0.1 * total
                v[name] = 0.999 * v[name] + 0.001 * total**2
                size = np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8
                p[name] = p[name] - rate[name] * m[name] / (1 - 0.9**t) / size
    return p, norms, rates


def a_stage(overflow_at: int | None = None) -> Stage[tuple[int, int], float]:
    """That problem; a key is its epoch and step. `overflow_at`: a step of infinite gradients."""
    parameters = {name: torch.nn.Parameter(torch.tensor(values)) for name, values in START.items()}
    w, b = parameters.values()
    steps = 0

    def loss(x: float) -> BatchLoss:
        nonlocal steps
        steps += 1

        def overflow(number: int = steps) -> None:
            if number == overflow_at and w.grad is not None:
                w.grad.fill_(math.inf)

        terms = {"near": (w - x).square().sum(), "small": 3 * x * b.sum().square()}
        return BatchLoss(terms, {"x": torch.tensor(x)}, overflow)

    return Stage(
        label="test",
        epochs=EPOCHS,
        groups=[Group(name, {name: p}, *RATES[name]) for name, p in parameters.items()],
        schedule=SCHEDULE,
        tensors=parameters,
        batches=lambda epoch: [(epoch, step) for step in range(STEPS)],
        load=lambda keys: [target(*key) for key in keys],
        loss=loss,
        describe=str,
        frames=0,
    )


def train(
    folder: Path, stage: Stage[Any, Any], interrupt: Interrupt | None = None, **runtime: Any
) -> list[dict[str, Any]]:
    """Run a stage; returns its journal."""
    options = Runtime(device="cpu", tensorboard=False, **runtime)
    engine = Engine(torch.device("cpu"), folder, interrupt or Interrupt(), options)
    fit(stage, engine, name="stage")
    return [json.loads(line) for line in (folder / "stage.jsonl").read_text().splitlines()]


def test_every_step_is_adams_with_the_rate_and_decay_of_its_group(tmp_path: Path) -> None:
    stage = a_stage()
    journal = train(tmp_path, stage)
    p, norms, rates = by_hand()
    for name, values in p.items():
        torch.testing.assert_close(
            stage.tensors[name].detach().double(), torch.tensor(values), rtol=0, atol=1e-5
        )
    steps = [record for record in journal if "step" in record]
    assert [(r["epoch"], r["step"]) for r in steps] == [
        (epoch, step) for epoch in range(1, EPOCHS + 1) for step in range(1, STEPS + 1)
    ]
    assert [r["x"] for r in steps] == pytest.approx(
        [target(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    )
    assert [r["loss"] for r in steps] == pytest.approx([r["near"] + r["small"] for r in steps])
    assert [r["gradient_norm"] for r in steps] == [pytest.approx(n, abs=1e-4) for n in norms]
    assert [r["lr"] for r in journal if "lr" in r] == [pytest.approx(rate) for rate in rates]


@pytest.mark.parametrize("after", range(1, EPOCHS * STEPS + 1))
def test_a_run_stopped_after_any_step_resumes_with_the_same_bits(
    tmp_path: Path, after: int
) -> None:
    interrupt, stage, whole = Interrupt(), a_stage(), a_stage()
    journal, loss, calls = train(tmp_path / "whole", whole), stage.loss, 0

    def stopping(x: float) -> BatchLoss:
        nonlocal calls
        calls += 1
        if calls == after:
            interrupt.request("test")
        return loss(x)

    with pytest.raises(Stopped, match=r"stopped before epoch \d, step \d: test\. Run the same"):
        train(tmp_path / "stopped", replace(stage, loss=stopping), interrupt)
    resumed = a_stage()
    assert train(tmp_path / "stopped", resumed) == journal
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in START)
    position, _ = Checkpoints(tmp_path / "stopped/checkpoints/stage", keep=2).restore()
    assert position.epoch == EPOCHS


def test_fp16_skips_a_step_that_overflows_and_lowers_the_scale(tmp_path: Path) -> None:
    stage = a_stage(overflow_at=1)
    before = [tensor.detach().clone() for tensor in stage.tensors.values()]
    after: list[list[Tensor]] = []
    loss = stage.loss

    def watched(x: float) -> BatchLoss:
        after.append([tensor.detach().clone() for tensor in stage.tensors.values()])
        return loss(x)

    journal = train(tmp_path, replace(stage, loss=watched), precision="fp16")
    assert journal[1]["gradient_norm"]["weights"] is None, "infinite: JSON has no number for it"
    _, norms, _ = by_hand()
    assert journal[1]["gradient_norm"]["biases"] == pytest.approx(norms[0]["biases"], rel=1e-3)
    assert all(map(torch.equal, after[1], before)), "nothing moves"
    assert not any(map(torch.equal, after[2], before))
    restored = Checkpoints(tmp_path / "checkpoints" / "stage", keep=2).restore()
    assert restored is not None
    assert restored[1]["scaler"]["scale"] == 2.0**15


def test_a_journal_shorter_than_its_checkpoint_says_is_refused(tmp_path: Path) -> None:
    train(tmp_path, a_stage())
    (tmp_path / "stage.jsonl").write_text("")
    with pytest.raises(Unresumable, match=r"stage\.jsonl has 0 bytes, fewer than the \d+ of"):
        train(tmp_path, a_stage())

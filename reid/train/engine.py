"""The training loop of both stages."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from reid.config import Schedule
from reid.errors import UserError
from reid.model.finetune import Group
from reid.progress import Progress
from reid.train.schedule import learning_rate

Key = TypeVar("Key")
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Outcome:
    """What one batch gave: weighted loss terms, and figures that are only watched."""

    terms: dict[str, Tensor]
    watched: dict[str, Tensor]


@dataclass(frozen=True)
class Plan(Generic[Key, Inputs]):
    """One stage of training in plain values and functions; nothing in it is random."""

    label: str
    epochs: int
    groups: Sequence[Group]
    schedule: Schedule
    batches: Callable[[int], Sequence[Key]]
    """Keys of the batches of an epoch: the same list every time it is asked for."""
    load: Callable[[Sequence[Key]], Iterable[Inputs]]
    """Turns keys into batches, in order."""
    loss: Callable[[Inputs], Outcome]


def fit(plan: Plan[Key, Inputs], *, journal: Path) -> None:
    """Train the plan's parameters with Adam, in place; write a JSON line per epoch to `journal`.

    Adam's weight decay is in the gradient (L2), as in the paper's code. Raises UserError when the
    loss is not finite.
    """
    optimizer = torch.optim.Adam(
        [
            {
                "params": list(group.parameters.values()),
                "lr": group.lr,
                "weight_decay": group.weight_decay,
            }
            for group in plan.groups
        ]
    )
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("w", encoding="utf-8") as lines:
        progress: Progress | None = None
        for epoch in range(plan.epochs):
            rates = [
                learning_rate(plan.schedule, group.lr, epoch, plan.epochs) for group in plan.groups
            ]
            for parameters, rate in zip(optimizer.param_groups, rates, strict=True):
                parameters["lr"] = rate
            keys = plan.batches(epoch)
            progress = progress or Progress(plan.label, plan.epochs * len(keys), "steps")
            totals: dict[str, float] = {}
            for step, inputs in enumerate(plan.load(keys)):
                values = _step(plan, optimizer, inputs, f"epoch {epoch + 1}, step {step + 1}")
                for name, value in values.items():
                    totals[name] = totals.get(name, 0.0) + value / len(keys)
                progress.advance(note=f"epoch {epoch + 1}, loss {values['loss']:.3f}")
            record = {"epoch": epoch + 1, "lr": max(rates), **totals}
            lines.write(json.dumps(record) + "\n")
            lines.flush()


def _step(
    plan: Plan[Key, Inputs], optimizer: torch.optim.Optimizer, inputs: Inputs, where: str
) -> dict[str, float]:
    outcome = plan.loss(inputs)
    total = torch.stack(list(outcome.terms.values())).sum()
    loss = total.item()
    if not math.isfinite(loss):
        terms = {name: round(term.item(), 4) for name, term in outcome.terms.items()}
        raise UserError(
            f"{plan.label}: the loss is {loss} at {where} (terms {terms}): "
            "lower the learning rate, or check the data of this batch"
        )
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    optimizer.step()
    named = {**outcome.terms, **outcome.watched}
    return {"loss": loss, **{name: value.item() for name, value in named.items()}}

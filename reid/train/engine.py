"""The training loop of both stages: exact to resume, wherever it was killed."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from reid.config import Runtime, Schedule
from reid.errors import Stopped, UserError
from reid.files import append_json_line
from reid.model.param_groups import Group
from reid.progress import Progress
from reid.train.board import Board
from reid.train.checkpoint import Checkpoints, Position
from reid.train.distributed import World
from reid.train.interrupt import Interrupt
from reid.train.journal import Journal
from reid.train.randomness import random_state, set_random_state
from reid.train.schedule import learning_rate

Key = TypeVar("Key")
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Outcome:
    """What one batch gave: weighted loss terms, and figures that are only watched."""

    terms: dict[str, Tensor]
    watched: dict[str, Tensor] = field(default_factory=dict)
    after_backward: Callable[[], None] | None = None
    """Carries gradients on into what was computed without a graph (reid.train.pieces)."""


@dataclass(frozen=True)
class Plan(Generic[Key, Inputs]):
    """One stage of training in plain values and functions of the epoch; nothing in it is random."""

    label: str
    epochs: int
    groups: Sequence[Group]
    schedule: Schedule
    tensors: Mapping[str, Tensor]
    """What training changes, parameters and buffers, by name: what a checkpoint holds."""
    batches: Callable[[int], Sequence[Key]]
    """Keys of the batches of an epoch: the same list every time it is asked for."""
    load: Callable[[Sequence[Key]], Iterable[Inputs]]
    """Turns keys into batches, in order."""
    loss: Callable[[Inputs], Outcome]
    describe: Callable[[Key], str]
    """Names what is in a batch, for errors."""
    frames: int
    """Frames of a batch, for the speed; 0 if none are read."""


@dataclass(frozen=True)
class Engine:
    """How a plan is run: changes speed and safety, not results."""

    device: torch.device
    interrupt: Interrupt
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    world: World = field(default_factory=World)
    checkpoint_seconds: float = 600.0
    keep_checkpoints: int = 2
    restart: bool = False
    tensorboard: bool = False

    @classmethod
    def of(
        cls,
        options: Runtime,
        device: torch.device,
        interrupt: Interrupt,
        world: World,
        *,
        restart: bool,
    ) -> "Engine":
        """The engine that the runtime options ask for."""
        return cls(
            device=device,
            interrupt=interrupt,
            precision=pick_precision(options.precision, device),
            world=world,
            checkpoint_seconds=60.0 * options.checkpoint_minutes,
            keep_checkpoints=options.keep_checkpoints,
            restart=restart,
            tensorboard=options.tensorboard,
        )


def pick_precision(
    choice: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device
) -> Literal["fp32", "bf16", "fp16"]:
    """`auto` is bf16 on a GPU that has it, else fp32."""
    if choice != "auto":
        return choice
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: str) -> "torch.autocast | nullcontext[None]":
    """Mixed precision for a forward pass; losses are computed in float32 all the same."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def fit(
    plan: Plan[Key, Inputs], engine: Engine, *, folder: Path, stage: str, facts: Mapping[str, Any]
) -> None:
    """Train the plan's parameters with Adam, in place.

    Checkpoints lie in `folder/checkpoints/<stage>`, metrics in `folder/<stage>.jsonl`. A run that
    was killed goes on from its last checkpoint and ends bit-equal to one that was not. Adam's
    weight decay is in the gradient (L2), as in the paper's code.

    Raises Stopped after a checkpoint when asked to stop, and UserError when the loss is not
    finite or when the folder holds an unfinished run made with other `facts`.
    """
    _Fit(plan, engine, folder, stage, facts).run()


class _Fit(Generic[Key, Inputs]):
    """The state of one call of `fit`."""

    def __init__(
        self,
        plan: Plan[Key, Inputs],
        engine: Engine,
        folder: Path,
        stage: str,
        facts: Mapping[str, Any],
    ) -> None:
        self.plan, self.engine = plan, engine
        self.optimizer = torch.optim.Adam(
            [
                {
                    "params": list(group.parameters.values()),
                    "lr": group.lr,
                    "weight_decay": group.weight_decay,
                }
                for group in plan.groups
            ],
            fused=True,
        )
        self.scaler = torch.amp.grad_scaler.GradScaler(
            engine.device.type, enabled=engine.precision == "fp16"
        )
        self.checkpoints = Checkpoints(
            folder / "checkpoints" / stage, keep=engine.keep_checkpoints, facts=facts
        )
        self.steps = len(plan.batches(0)) if plan.epochs else 0
        self.position = Position()
        self.saved = self.position
        self.save_seconds = self.longest_step = 0.0
        offset = self._restore()
        leads = engine.world.leads
        self.journal = Journal(folder / f"{stage}.jsonl", offset) if leads else None
        self.speed = folder / f"{stage}.speed.jsonl"
        self.board: Board | None = None
        if leads and engine.tensorboard and plan.epochs:
            begin = self.position.epoch * self.steps + self.position.step
            self.board = Board(folder / "tensorboard" / stage, begin)

    def run(self) -> None:
        """Train to the end."""
        plan, first = self.plan, self.position
        progress: Progress | None = None
        try:
            for epoch in range(first.epoch, plan.epochs):
                keys = plan.batches(epoch)
                if progress is None:
                    done = epoch * len(keys) + first.step
                    progress = Progress(plan.label, plan.epochs * len(keys), "steps", done=done)
                self._set_rates(epoch)
                self._epoch(epoch, keys, progress)
        except BaseException:
            # Whatever ends the run, what was already on its way to disk gets there.
            self._finish_quietly()
            raise
        self.checkpoints.wait()
        if self.journal:
            self.journal.close()
        if self.board:
            self.board.close()

    def _epoch(self, epoch: int, keys: Sequence[Key], progress: Progress) -> None:
        start = self.position.step
        last_save = began = entered = time.monotonic()
        for step, inputs in enumerate(self.plan.load(keys[start:]), start):
            loss = self._step(epoch, step, keys[step], inputs)
            last_of_epoch = step + 1 == len(keys)
            self.position = Position(epoch + 1, 0) if last_of_epoch else Position(epoch, step + 1)
            now = time.monotonic()
            self.longest_step, began = max(self.longest_step, now - began), now
            if self.engine.world.leads:
                progress.advance(note=f"epoch {epoch + 1}/{self.plan.epochs}, loss {loss:.3f}")
            self._stop_if_due()
            if last_of_epoch or now - last_save > self.engine.checkpoint_seconds:
                self._save()
                last_save = time.monotonic()
        self._log_speed(epoch, len(keys) - start, time.monotonic() - entered)

    def _step(self, epoch: int, step: int, key: Key, inputs: Inputs) -> float:
        outcome = self.plan.loss(inputs)
        total = torch.stack(list(outcome.terms.values())).sum()
        names = ["loss", *outcome.terms, *outcome.watched]
        figures = torch.stack([total, *outcome.terms.values(), *outcome.watched.values()])
        values: dict[str, float] = dict(zip(names, figures.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            where = f"at epoch {epoch + 1}, step {step + 1}, batch {self.plan.describe(key)}"
            self._refuse(f"the loss is {values['loss']} (terms {values}) {where}")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(total))
        if outcome.after_backward is not None:
            outcome.after_backward()
        self.scaler.unscale_(self.optimizer)
        norms = self._gradient_norms()
        if not self.scaler.is_enabled() and not all(map(math.isfinite, norms.values())):
            where = f"at epoch {epoch + 1}, step {step + 1}, batch {self.plan.describe(key)}"
            self._refuse(f"a gradient is not finite (norms {norms}) {where}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        record = {"epoch": epoch + 1, "step": step + 1, **values, "gradient_norm": norms}
        if self.journal:
            self.journal.write(record)
        if self.board:
            self.board.draw(epoch * self.steps + step, record)
        return values["loss"]

    def _gradient_norms(self) -> dict[str, float]:
        norms = {}
        for group in self.plan.groups:
            gradients = [p.grad for p in group.parameters.values() if p.grad is not None]
            norms[group.name] = torch.nn.utils.get_total_norm(gradients)
        return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))

    def _set_rates(self, epoch: int) -> None:
        plan = self.plan
        rates = {}
        for group, parameters in zip(plan.groups, self.optimizer.param_groups, strict=True):
            parameters["lr"] = learning_rate(plan.schedule, group.lr, epoch, plan.epochs)
            rates[group.name] = parameters["lr"]
        if self.position.step:
            return
        if self.journal:
            self.journal.write({"epoch": epoch + 1, "lr": rates})
        if self.board:
            self.board.draw(epoch * self.steps, {"lr": rates})

    def _log_speed(self, epoch: int, steps: int, seconds: float) -> None:
        """Append what differs from run to run, and so is no part of the journal."""
        if not self.engine.world.leads:
            return
        record = {
            "epoch": epoch + 1,
            "steps": steps,
            "seconds": round(seconds, 3),
            "frames_per_second": steps * self.plan.frames / seconds,
        }
        if self.engine.device.type == "cuda":
            record["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.engine.device)
        append_json_line(self.speed, record)
        if self.board:
            self.board.draw(epoch * self.steps, {"speed": record})

    def _refuse(self, problem: str) -> None:
        raise UserError(
            f"{self.plan.label}: {problem}. The last good checkpoint, before epoch "
            f"{self.saved.epoch + 1}, step {self.saved.step + 1}, is kept: lower the learning "
            "rate or check these tracklets"
        )

    def _stop_if_due(self) -> None:
        needed = 2 * self.longest_step + 2 * self.save_seconds
        reason = self.engine.interrupt.due(needed)
        if not self.engine.world.any(reason is not None, self.engine.device):
            return
        stopped = (
            f"{self.plan.label} stopped before epoch {self.position.epoch + 1}, step "
            f"{self.position.step + 1}: {reason or 'another process was asked to stop'}. "
            "Run the same command again to resume"
        )
        if self.engine.interrupt.may_save:
            try:
                self._save()
                self.checkpoints.wait()
            except OSError as error:
                raise Stopped(f"{stopped}; this step could not be saved ({error})") from error
        raise Stopped(stopped)

    def _save(self) -> None:
        finite = torch.stack([tensor.isfinite().all() for tensor in self.plan.tensors.values()])
        if not finite.all():
            pairs = zip(self.plan.tensors, finite.tolist(), strict=True)
            names = [name for name, good in pairs if not good]
            where = f"before epoch {self.position.epoch + 1}, step {self.position.step + 1}"
            self._refuse(f"{len(names)} weights are not finite ({names[0]}, ...) {where}")
        if self.journal is None:
            return
        began = time.monotonic()
        state = {
            "tensors": {name: tensor.detach() for name, tensor in self.plan.tensors.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "journal": self.journal.sync(),
        }
        complete = self.position.epoch >= self.plan.epochs
        self.checkpoints.save(self.position, state, complete=complete)
        self.saved = self.position
        self.save_seconds = time.monotonic() - began

    def _restore(self) -> int:
        """Load the newest checkpoint into everything; returns the journal's length then."""
        leads = self.engine.world.leads
        if self.engine.restart and leads:
            self.checkpoints.clear()
        self.engine.world.wait()
        restored = None if self.engine.restart else self.checkpoints.restore()
        if restored is None:
            return 0
        position, state = restored
        with torch.no_grad():
            for name, tensor in self.plan.tensors.items():
                tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        set_random_state(state["random"])
        self.position = self.saved = position
        if leads:
            print(
                f"{self.plan.label}: resuming before epoch {self.position.epoch + 1}, step "
                f"{self.position.step + 1}",
                flush=True,
            )
        offset: int = state["journal"]
        return offset

    def _finish_quietly(self) -> None:
        try:
            self.checkpoints.wait()
        except OSError as error:
            print(f"warning: {error}", flush=True)

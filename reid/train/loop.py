"""The training loop of both stages: wherever it was killed, it resumes with the same bits."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from reid.config import Schedule
from reid.errors import Stopped, UserError
from reid.files import append_json_line
from reid.model.param_groups import Group
from reid.progress import Progress
from reid.train.checkpoint import Checkpoints, Position
from reid.train.journal import Journal
from reid.train.losses import BatchLoss
from reid.train.schedule import learning_rate
from reid.train.session import Engine

Key = TypeVar("Key")
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Stage(Generic[Key, Inputs]):
    """A stage of training in plain values and functions of the epoch; nothing in it is random."""

    label: str
    epochs: int
    groups: Sequence[Group]
    schedule: Schedule
    tensors: Mapping[str, Tensor]
    """What training changes, parameters and buffers, by name: what a checkpoint holds."""
    batches: Callable[[int], Sequence[Key]]
    """Keys of the batches of an epoch: the same list whenever it is called."""
    load: Callable[[Sequence[Key]], Iterable[Inputs]]
    """Turns keys into batches, in order."""
    loss: Callable[[Inputs], BatchLoss]
    describe: Callable[[Key], str]
    """Names what is in a batch, for errors."""
    frames: int
    """Frames of a batch, for the speed; 0 if none are read."""


def fit(stage: Stage[Key, Inputs], engine: Engine, *, name: str) -> None:
    """Train the stage's parameters with Adam, in place.

    Checkpoints lie in `engine.folder/checkpoints/<name>`, metrics in `<name>.jsonl`. A run that was
    killed resumes from its last checkpoint and ends bit-equal to one that was not. Adam's
    weight decay is in the gradient (L2), as in the paper's code.

    Raises:
        Stopped: after a checkpoint, when asked to stop.
        Unresumable: when all checkpoints are damaged.
        UserError: when a loss, gradient or weight is not finite.
        OSError: when a checkpoint cannot be written.
    """
    with closing(_Loop(stage, engine, name)) as loop:
        loop.run()


class _Loop(Generic[Key, Inputs]):
    """The state of one call of `fit`."""

    def __init__(self, stage: Stage[Key, Inputs], engine: Engine, name: str) -> None:
        self.stage, self.engine, folder = stage, engine, engine.folder
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay}
                for g in stage.groups
            ],
            fused=True,
        )
        self.scaler = torch.amp.grad_scaler.GradScaler(
            engine.device.type, enabled=engine.precision == "fp16"
        )
        keep = engine.runtime.keep_checkpoints
        self.checkpoints = Checkpoints(folder / "checkpoints" / name, keep=keep)
        self.steps = len(stage.batches(0)) if stage.epochs else 0
        self.position = self.saved = Position()
        self.save_seconds = self.longest_step = 0.0
        offset = self._restore()
        self.speed = folder / f"{name}.speed.jsonl"
        self.journal: Journal | None = None
        if engine.world.leads:
            curves = engine.runtime.tensorboard and self.steps
            first = self._count(self.position) if curves else None
            self.journal = Journal(folder, name, offset=offset, curves_from=first)

    def run(self) -> None:
        """Train to the end."""
        total, done = self.stage.epochs * self.steps, self._count(self.position)
        progress = Progress(self.stage.label, total, "steps", done=done)
        for epoch in range(self.position.epoch, self.stage.epochs):
            self._set_rates(epoch)
            self._epoch(epoch, self.stage.batches(epoch), progress)
        self.checkpoints.wait()

    def close(self) -> None:
        """Close the files; a checkpoint that is being written is completed first."""
        try:
            self.checkpoints.wait()
            if self.journal:
                self.journal.close()
        except OSError as error:
            print(f"warning: {error}", flush=True)

    def _count(self, position: Position) -> int:
        """Steps from the start of training to a position."""
        return position.epoch * self.steps + position.step

    def _epoch(self, epoch: int, keys: Sequence[Key], progress: Progress) -> None:
        first = self.position.step
        saved = start = step_start = time.monotonic()
        for step, inputs in enumerate(self.stage.load(keys[first:]), first):
            loss = self._step(Position(epoch, step), keys[step], inputs)
            last = step + 1 == len(keys)
            self.position = Position(epoch + 1, 0) if last else Position(epoch, step + 1)
            now = time.monotonic()
            self.longest_step, step_start = max(self.longest_step, now - step_start), now
            if self.engine.world.leads:
                progress.advance(note=f"epoch {epoch + 1}/{self.stage.epochs}, loss {loss:.3f}")
            self._stop_if_due()
            if last or now - saved > 60 * self.engine.runtime.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        self._log_speed(epoch, len(keys) - first, time.monotonic() - start)

    def _step(self, position: Position, key: Key, inputs: Inputs) -> float:
        """One step of the optimizer; returns the loss."""
        result = self.stage.loss(inputs)
        total = result.total
        figures = {"loss": total, **result.terms, **result.figures}
        numbers = torch.stack(list(figures.values())).tolist()
        values: dict[str, float] = dict(zip(figures, numbers, strict=True))
        batch = f"{_words(position)}, batch {self.stage.describe(key)}"
        if not math.isfinite(values["loss"]):
            self._refuse(f"the loss is {values['loss']} (terms {values}) at {batch}")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(total))
        if result.after_backward is not None:
            result.after_backward()
        self.scaler.unscale_(self.optimizer)
        norms = self._gradient_norms()
        if not self.scaler.is_enabled() and not all(map(math.isfinite, norms.values())):
            self._refuse(f"a gradient is not finite (norms {norms}) at {batch}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.journal:
            record = {"epoch": position.epoch + 1, "step": position.step + 1, **values}
            self.journal.write({**record, "gradient_norm": norms}, self._count(position))
        return values["loss"]

    def _gradient_norms(self) -> dict[str, float]:
        norms = {}
        for group in self.stage.groups:
            gradients = [p.grad for p in group.parameters.values() if p.grad is not None]
            norms[group.name] = torch.nn.utils.get_total_norm(gradients)
        return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))

    def _set_rates(self, epoch: int) -> None:
        rates = {}
        for group, options in zip(self.stage.groups, self.optimizer.param_groups, strict=True):
            rate = learning_rate(self.stage.schedule, group.lr, epoch, self.stage.epochs)
            options["lr"] = rates[group.name] = rate
        if self.journal and not self.position.step:
            self.journal.write({"epoch": epoch + 1, "lr": rates}, epoch * self.steps)

    def _log_speed(self, epoch: int, steps: int, seconds: float) -> None:
        """Record what differs from run to run and so is no part of the journal."""
        if not self.journal:
            return
        rate = steps * self.stage.frames / seconds
        record = {"epoch": epoch + 1, "steps": steps, "seconds": round(seconds, 3)}
        record["frames_per_second"] = rate
        if self.engine.device.type == "cuda":
            record["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.engine.device)
        append_json_line(self.speed, record)
        self.journal.draw({"speed": record}, epoch * self.steps)

    def _refuse(self, problem: str) -> NoReturn:
        raise UserError(
            f"{self.stage.label}: {problem}. The last good checkpoint, before "
            f"{_words(self.saved)}, is kept: lower the learning rate or check these tracklets"
        )

    def _stop_if_due(self) -> None:
        """Save and raise Stopped if this or another process was asked to stop."""
        interrupt = self.engine.interrupt
        reason = interrupt.due(needed=2 * self.longest_step + 2 * self.save_seconds)
        if not self.engine.world.any(reason is not None, self.engine.device):
            return
        message = (
            f"{self.stage.label} stopped before {_words(self.position)}: "
            f"{reason or 'another process was asked to stop'}. Run the same command again to resume"
        )
        if interrupt.may_save:
            try:
                self._save()
                self.checkpoints.wait()
            except OSError as error:
                raise Stopped(f"{message}; this step could not be saved ({error})") from error
        raise Stopped(message)

    def _save(self) -> None:
        tensors = {name: tensor.detach() for name, tensor in self.stage.tensors.items()}
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
        if not all(finite):
            names = [name for name, good in zip(tensors, finite, strict=True) if not good]
            where = f"before {_words(self.position)}"
            self._refuse(f"{len(names)} weights are not finite ({names[0]}, ...) {where}")
        if self.journal is None:
            return
        start = time.monotonic()
        state = {
            "tensors": tensors,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # Our stages draw nothing from torch's generators, but a loss of the user may.
            "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
            "journal": self.journal.sync(),
        }
        self.checkpoints.save(self.position, state)
        self.saved = self.position
        self.save_seconds = time.monotonic() - start

    def _restore(self) -> int:
        """Load the newest checkpoint; returns the length of the journal at that time."""
        leads = self.engine.world.leads
        if self.engine.restart and leads:
            self.checkpoints.clear()
        self.engine.world.wait()
        restored = None if self.engine.restart else self.checkpoints.restore()
        if restored is None:
            return 0
        self.position, state = restored
        self.saved = self.position
        with torch.no_grad():
            for name, tensor in self.stage.tensors.items():
                tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        cpu, *gpus = state["random"]
        torch.set_rng_state(cpu)
        if len(gpus) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(gpus)
        if leads:
            print(f"{self.stage.label}: resuming before {_words(self.position)}", flush=True)
        offset: int = state["journal"]
        return offset


def _words(position: Position) -> str:
    return f"epoch {position.epoch + 1}, step {position.step + 1}"

"""Around a stage: the device, the process group, the lease and the record of attempts."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from reid.config import Runtime
from reid.errors import Stopped, UserError
from reid.files import append_json_line
from reid.train import distributed, lease
from reid.train.common import Precision, autocast, pick_device, pick_precision
from reid.train.distributed import World
from reid.train.interrupt import Interrupt


@dataclass(frozen=True)
class Engine:
    """What a stage runs on: changes speed and safety, not results."""

    device: torch.device
    interrupt: Interrupt
    runtime: Runtime
    world: World = field(default_factory=World)
    restart: bool = False
    """Throw away the progress of earlier starts."""

    @property
    def precision(self) -> Precision:
        """Of forward passes."""
        return pick_precision(self.runtime.precision, self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for a forward pass; losses are computed in float32 all the same."""
        return autocast(self.device, self.precision)


@dataclass(frozen=True)
class Session:
    """What the command line and the scheduler say about this start of a trainer."""

    interrupt: Interrupt
    environment: Mapping[str, str]
    restart: bool = False
    patience: float = 0.0
    """Seconds to wait for another trainer to leave the run folder."""

    @contextmanager
    def engine(self, stage: str, folder: Path, runtime: Runtime) -> Iterator[Engine]:
        """Hold the run folder and yield the engine to train with.

        Every start and end is a line of `folder/attempts.jsonl`. Raises LeaseHeld when another
        process holds `folder`, and UserError with advice when the GPU runs out of memory.
        """
        job = self.environment.get("SLURM_JOB_ID")
        cuda = pick_device(runtime.device).type == "cuda"
        world = distributed.join(self.environment, cuda=cuda)
        # The launcher lets each process see either all GPUs of its node or only its own.
        number = world.local_rank % torch.cuda.device_count() if cuda else 0
        device = torch.device("cuda", number) if cuda else torch.device("cpu")
        with ExitStack() as stack:
            stack.callback(distributed.leave, world)
            if world.leads:
                stack.enter_context(
                    lease.held(folder, job=job, interrupt=self.interrupt, patience=self.patience)
                )
                stack.enter_context(_recorded(folder / "attempts.jsonl", stage, job))
            try:
                yield Engine(device, self.interrupt, runtime, world, self.restart)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the GPU is out of memory ({str(error).splitlines()[0]}): set "
                    "runtime.micro_batch to half of what a batch or micro-batch has now (same loss "
                    "and gradient), runtime.activation_checkpointing to true, or "
                    "runtime.precision to bf16"
                ) from error


@contextmanager
def _recorded(path: Path, stage: str, job: str | None) -> Iterator[None]:
    """Append a line at the start and at the end of an attempt."""

    def append(event: str, **reason: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"stage": stage, "job": job, "host": socket.gethostname()}
        append_json_line(path, {"time": now, "event": event, **facts, **reason})

    append("start")
    try:
        yield
    except BaseException as error:
        event = "stopped" if isinstance(error, Stopped) else "failed"
        append(event, reason=str(error) or type(error).__name__)
        raise
    append("done")

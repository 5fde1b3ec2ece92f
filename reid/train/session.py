"""Around a stage: the process group, the lease of the run folder, the ledger of attempts."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from reid.config import Runtime
from reid.errors import Stopped
from reid.files import append_json_line
from reid.train import distributed, lease
from reid.train.common import pick_device
from reid.train.engine import Engine
from reid.train.interrupt import Interrupt


@dataclass(frozen=True)
class Session:
    """What the command line and the scheduler say about this start of a trainer."""

    interrupt: Interrupt
    environment: Mapping[str, str]
    restart: bool = False
    patience: float = 0.0
    """Seconds to wait for another trainer to leave the run folder."""

    @property
    def job(self) -> str | None:
        """Slurm's job id, if this runs in a job."""
        return self.environment.get("SLURM_JOB_ID")

    @contextmanager
    def at_work(self, stage: str, folder: Path, runtime: Runtime) -> Iterator[Engine]:
        """Hold the run folder and yield the engine to train with.

        Raises LeaseHeld when another process is at work in `folder`. Every start and end is a
        line of `folder/attempts.jsonl`.
        """
        cuda = pick_device(runtime.device).type == "cuda"
        world = distributed.join(self.environment, cuda=cuda)
        device = torch.device("cuda", _own_gpu(world)) if cuda else torch.device("cpu")
        with ExitStack() as stack:
            stack.callback(distributed.leave, world)
            if world.leads:
                stack.enter_context(
                    lease.held(
                        folder,
                        job=self.job,
                        interrupt=self.interrupt,
                        patience=self.patience,
                    )
                )
                stack.enter_context(_recorded(folder / "attempts.jsonl", stage, self.job))
            yield Engine.of(runtime, device, self.interrupt, world, restart=self.restart)


def _own_gpu(world: distributed.World) -> int:
    """The launcher lets each process see either all GPUs of its node or only its own."""
    return world.local_rank % torch.cuda.device_count()


@contextmanager
def _recorded(ledger: Path, stage: str, job: str | None) -> Iterator[None]:
    facts = {"stage": stage, "job": job, "host": socket.gethostname()}
    _append(ledger, {"event": "start", **facts})
    try:
        yield
    except BaseException as error:
        event = "stopped" if isinstance(error, Stopped) else "failed"
        _append(ledger, {"event": event, **facts, "reason": str(error) or type(error).__name__})
        raise
    _append(ledger, {"event": "done", **facts})


def _append(ledger: Path, record: Mapping[str, object]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    append_json_line(ledger, {"time": now, **record})

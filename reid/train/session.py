"""Around a stage: its inputs, the device, the process group, the lease, attempts, the manifest."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reid import provenance
from reid.chain import Chain
from reid.config import Runtime
from reid.errors import UserError
from reid.files import write_json
from reid.steps import Job
from reid.train import attempts, distributed, lease
from reid.train.common import Precision, autocast, pick_device, pick_precision
from reid.train.distributed import World
from reid.train.interrupt import Interrupt


@dataclass(frozen=True)
class Engine:
    """What a stage runs on: changes speed and safety, not results."""

    device: torch.device
    folder: Path
    """Of what is kept to resume: it belongs to the stage's stamp."""
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
    def engine(self, chain: Chain, job: Job, runtime: Runtime) -> Iterator[Engine]:
        """Check the inputs of a stage, hold its work folder, yield the engine to train with.

        At the end the manifest is written. Every start and end is a line of `attempts.jsonl` in
        the work folder. A resumed stage runs with as many threads as at its first start, because
        their number decides the last bits. Raises UserError as `Chain.ready`, LeaseHeld when
        another process holds the folder, and UserError with advice when the GPU runs out of memory.
        """
        stamp = chain.ready(job)
        folder = chain.work(job)
        slurm = self.environment.get("SLURM_JOB_ID")
        cuda = pick_device(runtime.device).type == "cuda"
        world = distributed.join(self.environment, cuda=cuda)
        # The launcher lets each process see either all GPUs of its node or only its own.
        number = world.local_rank % torch.cuda.device_count() if cuda else 0
        device = torch.device("cuda", number) if cuda else torch.device("cpu")
        starts = [] if self.restart else attempts.starts(folder)
        if starts and (threads := starts[0]["threads"]) != torch.get_num_threads():
            print(f"with {threads} threads, as at the first start: the same bits", flush=True)
            torch.set_num_threads(threads)
        precision = pick_precision(runtime.precision, device)
        with ExitStack() as stack:
            stack.callback(distributed.leave, world)
            if world.leads:
                made = provenance.facts(str(device), precision)
                stack.enter_context(
                    lease.held(folder, job=slurm, interrupt=self.interrupt, patience=self.patience)
                )
                write_json(folder / "stamp.json", stamp)
                stack.enter_context(attempts.recorded(folder, made))
            try:
                yield Engine(device, folder, self.interrupt, runtime, world, self.restart)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"the GPU is out of memory ({str(error).splitlines()[0]}): set "
                    "runtime.micro_batch to half of what a batch or micro-batch has now (same loss "
                    "and gradient), runtime.activation_checkpointing to true, or "
                    "runtime.precision to bf16"
                ) from error
            if world.leads:
                made["starts"] = attempts.starts(folder)
                chain.write_manifest(job, stamp, made)

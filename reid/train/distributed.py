"""Several processes that train one model (MODEL 4.6 on the batch as configured).

Each process embeds its share of a batch; the features are gathered, and every process computes
the same loss on the whole batch, so that triplets and contrastive terms see all tracklets.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reid.errors import UserError


@dataclass(frozen=True)
class World:
    """The process group of this training; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's part of a batch of `total` tracklets."""
        if total % self.size:
            raise UserError(
                f"stage2.batch_size ({total}) must be a multiple of the {self.size} processes"
            )
        part = total // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, C) of every process, in the order of ranks: (size * n, C). No gradient."""
        if self.size == 1:
            return rows
        out = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(out, rows.contiguous())
        return out

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process raises the flag."""
        if self.size == 1:
            return flag
        vote = torch.tensor(float(flag), device=device)
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        return bool(vote)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def join(environment: Mapping[str, str], *, cuda: bool) -> World:
    """Join the process group that the launcher describes in `environment`, if it does.

    torchrun sets RANK and WORLD_SIZE; for the tasks of `srun` and of submitit's jobs submitit's
    helper works them out. A process started alone is a world of one.
    """
    if _number(environment, "WORLD_SIZE", 1) > 1 and "RANK" in environment:
        world = _of_torchrun(environment)
    elif _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        world = _of_submitit(environment, launcher="slurm")
    elif _number(environment, "SUBMITIT_LOCAL_NTASKS", 1) > 1:
        world = _of_submitit(environment, launcher="local")
    else:
        return World()
    try:
        dist.init_process_group("nccl" if cuda else "gloo", rank=world.rank, world_size=world.size)
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {world.rank} of {world.size} did not meet the others ({reason}): {_UNSET}"
        ) from None
    return world


_UNSET = "to train in one process, unset WORLD_SIZE and RANK; for several, start them by torchrun"


def _of_torchrun(environment: Mapping[str, str]) -> World:
    rank, size = (_number(environment, name, 0) for name in ("RANK", "WORLD_SIZE"))
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing or not 0 <= rank < size:
        found = f"{missing[0]} is not set" if missing else "no process has that number"
        raise UserError(f"WORLD_SIZE is {size} and RANK is {rank}, but {found}: {_UNSET}")
    return World(rank, size, _number(environment, "LOCAL_RANK", 0))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from the environment. Raises UserError."""
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r} in the environment: expected a number, or unset it")
    return int(text)


def _of_submitit(environment: Mapping[str, str], *, launcher: str) -> World:
    from submitit.helpers import TorchDistributedEnvironment

    # submitit asks for this name, which it sets in its own jobs only, not under a plain `srun`.
    os.environ["SUBMITIT_EXECUTOR"] = launcher
    address = environment.get("MASTER_ADDR")
    # Each task sees the GPUs that its launcher gave it: submitit must not choose among them.
    group = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if address is None and group.local_world_size == group.world_size:
        address = "127.0.0.1"  # on one node nothing depends on how its name resolves
    os.environ["MASTER_ADDR"] = address or group.master_addr
    return World(group.rank, group.world_size, group.local_rank)


def leave(world: World) -> None:
    """Leave the process group."""
    if world.size > 1:
        dist.destroy_process_group()

"""Start a verb of `reid` as one process per GPU that its job has.

    python -m cluster.ddp --gpus 4 --cpus 8 train stage2 --training scaled ...

On one node torchrun starts them. In a job of several nodes, which Snakemake leaves to its rule
(the resource `mpi`), srun does. They find each other by `reid.train.distributed`.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence


def command(
    verb: Sequence[str], environment: Mapping[str, str], *, gpus: int, cpus: int
) -> list[str]:
    """The command that runs `reid VERB...` once for each GPU; plainly if there is one, or none.

    `gpus`: of the job; 0 where they were asked for in another way, and those in sight count.
    `cpus`: of each task of a job of several nodes.
    """
    count = gpus or len(environment.get("CUDA_VISIBLE_DEVICES", "").split(","))
    alone = [sys.executable, "-m", "reid", *verb]
    if count == 1:
        return alone
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment:
        # Outside of any step srun is not told of the time limit, only its tasks are: told itself,
        # it would kill them before they have saved.
        return ["srun", f"--ntasks={count}", f"--cpus-per-task={cpus}", *alone]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, f"--nproc-per-node={count}", "-m", "reid", *verb]


def main() -> None:
    """Become that command: signals reach it without a process in between."""
    parser = argparse.ArgumentParser(prog="python -m cluster.ddp", description=__doc__)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("verb", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    line = command(given.verb, os.environ, gpus=given.gpus, cpus=given.cpus)
    os.execvp(line[0], line)


if __name__ == "__main__":
    main()

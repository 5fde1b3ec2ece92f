"""One process per GPU, wherever the job is."""

import sys

import pytest

from cluster.ddp import command

PYTHON = sys.executable
TORCHRUN = f"{PYTHON} -m torch.distributed.run --standalone --nproc-per-node=4"
JOB = {"SLURM_JOB_ID": "7"}
STEP = {**JOB, "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environment", "gpus", "starter"),
    [
        ({}, 1, PYTHON),
        ({}, 0, PYTHON),
        (JOB, 1, PYTHON),
        ({**STEP, "CUDA_VISIBLE_DEVICES": "3"}, 0, PYTHON),
        ({}, 4, TORCHRUN),
        (STEP, 4, TORCHRUN),
        ({**STEP, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 0, TORCHRUN),
        (JOB, 4, f"srun --ntasks=4 --cpus-per-task=8 {PYTHON}"),
    ],
)
def test_the_command_for(environment: dict[str, str], gpus: int, starter: str) -> None:
    line = command(["train", "stage2"], environment, gpus=gpus, cpus=8)
    assert " ".join(line) == f"{starter} -m reid train stage2"

"""One process per GPU, wherever the job is."""

import sys

from cluster.processes import command

VERB = ["train", "stage2", "--seed", "1"]
ALONE = [sys.executable, "-m", "reid", *VERB]
IN_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


def test_one_gpu_or_none_is_the_plain_command() -> None:
    assert command(VERB, {}, gpus=1, cpus=8) == ALONE
    assert command(VERB, {}, gpus=0, cpus=8) == ALONE
    assert command(VERB, {**IN_STEP, "CUDA_VISIBLE_DEVICES": "3"}, gpus=0, cpus=8) == ALONE


def test_on_one_node_torchrun_starts_them() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    expected = [*torchrun, "--nproc-per-node=4", "-m", "reid", *VERB]
    assert command(VERB, {}, gpus=4, cpus=8) == expected
    assert command(VERB, IN_STEP, gpus=4, cpus=8) == expected
    by_gres = {**IN_STEP, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert command(VERB, by_gres, gpus=0, cpus=8) == expected


def test_in_a_job_without_a_step_srun_starts_them() -> None:
    srun = ["srun", "--ntasks=4", "--cpus-per-task=8"]
    assert command(VERB, {"SLURM_JOB_ID": "7"}, gpus=4, cpus=8) == [*srun, *ALONE]

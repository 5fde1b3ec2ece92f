"""Must-show 9: stage 2 in two processes, which Slurm starts: the loss of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.site import RUN, STEPS, Site, job, time_is_nearly_up

TRAIN = ["train", "stage2", "--config", "config/config.yaml", "--training", "baseline"]


def losses(run: Path) -> list[float]:
    (journal,) = run.glob("stage2-*/stage2.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("nodes", [1, 2])
def test_must_show_9_two_processes_of_srun(site: Site, base: Site, nodes: int) -> None:
    done = subprocess.run(
        ["srun", "--ntasks=2", f"--nodes={nodes}", "--mem=4G", "--time=5", "--gpus=a100:2",
         "--partition=gpu", sys.executable, "-m", "reid", *TRAIN, "--seed", "1"],
        cwd=site.path,
        # The nodes of the testbed are names only, which a second one cannot look up.
        env=site.environment(0.0, **({"MASTER_ADDR": "127.0.0.1"} if nodes == 2 else {})),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    alone, together = losses(base.path / RUN), losses(site.run)
    start, end = site.attempts
    assert (start["event"], end["event"]) == ("start", "done"), "only one of them keeps the ledger"
    assert job(start["made"]["slurm"]["job_id"])["NumNodes"] == str(nodes)
    assert len(site.steps) == 2 * STEPS, "each process takes every step, with its share"
    assert together == pytest.approx(alone, rel=1e-4)
    assert (site.run / "stage2.safetensors").exists()


def test_gpus_of_the_profile_are_processes(site: Site, base: Site) -> None:
    """`gpu: 2` in one place, and the time limit on top: both processes save and go on."""
    site.edit("  stage2: *gpu", "  stage2:\n    <<: *gpu\n    gpu: 2")  # fmt: skip
    controller = site.on_slurm(step_seconds=1.0)
    first = controller.submitted()
    site.trained(4)
    time_is_nearly_up(first)
    controller.succeeds(400)
    alone, together = losses(base.path / RUN), losses(site.run)
    asked = job(first)
    assert (asked["TresPerJob"], asked["NumNodes"]) == ("gres:gpu:a100:2", "1")
    assert [line["event"] for line in site.attempts] == ["start", "stopped", "start", "done"]
    assert len(site.steps) == 2 * STEPS, "both saved at the same step: none is done twice"
    assert together == pytest.approx(alone, rel=1e-4)


def test_processes_on_several_nodes_are_a_matter_of_the_profile_too(site: Site, base: Site) -> None:
    site.edit("  stage2: *gpu", "  stage2:\n    <<: *gpu\n    gpu: 4\n    nodes: 2\n"
              "    mpi: \"'srun'\"\n    tasks_per_node: 2")  # fmt: skip
    controller = site.on_slurm(step_seconds=0.2, MASTER_ADDR="127.0.0.1")
    controller.succeeds()
    alone, together = losses(base.path / RUN), losses(site.run)
    asked = job(controller.jobs[0])
    assert (asked["NumNodes"], asked["NumTasks"], asked["CPUs/Task"]) == ("2", "4", "8")
    assert len(site.steps) == 4 * STEPS
    assert together == pytest.approx(alone, rel=1e-4)

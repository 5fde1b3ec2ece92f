"""Must-show 2, 3, 6 and 7: one stage 2 on Slurm, disturbed. It ends as if nothing had happened."""

import os
import signal

from tests.slurm.site import (
    LOG,
    STAGE2,
    STEPS,
    Site,
    interrupt,
    job,
    preempt,
    slurm,
    time_is_nearly_up,
    until,
)
from tests.slurm.testbed import conf


def test_must_show_2_fault_13_time_limit_twice(site: Site, expected: dict[str, str]) -> None:
    """TERM before the limit, checkpoint, retry. The limit is brought near when training runs."""
    controller = site.on_slurm(step_seconds=4.0, FAST_FROM="3")
    for number in (1, 2):
        mine = controller.submitted(number)
        site.trained(3, of=mine)
        time_is_nearly_up(mine)
    last = controller.submitted(3)
    controller.succeeds()
    assert site.outcome() == expected
    assert controller.jobs[2:] == [last]
    assert [line["event"] for line in site.attempts] == [
        *["start", "stopped"] * 2,
        *["start", "done"],
    ]
    assert site.log.count("resuming before epoch") == 2, "the log goes on"
    assert len(site.steps) == STEPS, "a checkpoint was taken in time: no step is done twice"


def test_must_show_3_fault_14_preempted_and_requeued(
    site: Site, expected: dict[str, str], pair: str
) -> None:
    site.to_partition("spot", pair)
    controller = site.on_slurm()
    mine = controller.submitted()
    site.trained(8)
    preempt(mine)
    controller.succeeds()
    assert site.outcome() == expected
    assert controller.jobs == [mine], "the same job id"
    assert job(mine)["Restarts"] == "1"
    assert [line["event"] for line in site.attempts] == ["start", "stopped", "start", "done"]
    assert site.log.count("group  ") == 2, "the log of the first start is kept"
    assert site.log.count("resuming before epoch") == 1
    assert len(site.steps) == STEPS


def test_fault_14_preempted_without_requeue_does_not_hang(
    site: Site, expected: dict[str, str], pair: str
) -> None:
    """The plugin alone would wait forever; cluster/executor.py gives the job up after a minute."""
    site.to_partition("scavenge", pair)
    controller = site.on_slurm()
    mine = controller.submitted()
    site.trained(8)
    preempt(mine)
    until(lambda: job(mine)["JobState"] == "PREEMPTED", "the job to be taken away for good")
    controller.succeeds()
    assert f"Slurm job {mine} was preempted and Slurm did not put it back" in controller.text
    assert site.outcome() == expected
    assert len(controller.jobs) == 2
    assert len(site.steps) == STEPS


def test_fault_13_fault_20_killed_for_memory_gets_more_and_never_loops(
    site: Site, expected: dict[str, str]
) -> None:
    """As the kernel kills what takes too much: at once, and the trainer cannot say a word."""
    controller = site.on_slurm("--retries", "1", step_seconds=1.0)
    for attempt, memory in ((1, "48G"), (2, "72G")):
        mine = controller.submitted(attempt)
        assert job(mine)["MinMemoryNode"] == memory
        site.trained(4, of=mine)
        os.kill(int(site.steps[-1].split()[1]), signal.SIGKILL)
    assert controller.ends() == 1
    assert len(controller.jobs) == 2
    assert f"log: {LOG} (check log file(s) for error details)" in controller.text
    assert f"snakemake {STAGE2} --profile slurm --retries 1" in controller.text, "what to type"
    again = site.on_slurm()
    again.succeeds()
    assert site.outcome() == expected


def test_must_show_6_fault_18_controller_killed_while_a_job_runs(
    site: Site, expected: dict[str, str]
) -> None:
    controller = site.on_slurm(step_seconds=0.8)
    first = controller.submitted()
    site.trained(4)
    controller.send(signal.SIGKILL)
    controller.ends()
    refused = site.on_slurm()
    assert refused.ends() == 1
    assert "Directory cannot be locked" in refused.text
    site.start("--unlock").succeeds()
    again = site.on_slurm()
    second = again.submitted()
    assert job(second)["Dependency"].startswith(f"afterany:{first}")
    again.succeeds()
    assert site.outcome() == expected
    assert len(site.steps) == STEPS, "the first job was left to finish"


def test_must_show_6_fault_18_controller_killed_while_a_job_waits(
    site: Site, expected: dict[str, str], pair: str
) -> None:
    site.to_partition("spot", pair)
    full = [
        slurm("sbatch", "--parsable", "-p", "urgent", "-w", node, "--gres=gpu:a100:4",
              "-o", "/dev/null", "--wrap", "sleep 300").strip()
        for node in conf.PAIRS[pair]
    ]  # fmt: skip
    controller = site.on_slurm(step_seconds=0.0)
    first = controller.submitted()
    controller.send(signal.SIGKILL)
    controller.ends()
    assert job(first)["JobState"] == "PENDING"
    site.start("--unlock").succeeds()
    again = site.on_slurm(step_seconds=0.0)
    again.submitted()
    slurm("scancel", *full)
    again.succeeds()
    assert job(first)["JobState"] == "COMPLETED"
    assert site.outcome() == expected
    assert len(site.steps) == STEPS


def test_must_show_6_fault_19_ctrl_c(site: Site, expected: dict[str, str]) -> None:
    controller = site.on_slurm()
    first = controller.submitted()
    site.trained(8)
    site.hold()  # the training lasts until Snakemake has heard Ctrl-C
    interrupt(controller)
    site.release()
    assert controller.ends() != 0
    until(lambda: job(first)["JobState"] == "CANCELLED", "the job to be cancelled")
    assert not (site.run / "stage2.safetensors").exists()
    assert not (site.run / "stage2.manifest.json").exists()
    again = site.on_slurm()
    again.succeeds()
    assert site.outcome() == expected
    assert len(site.steps) == STEPS

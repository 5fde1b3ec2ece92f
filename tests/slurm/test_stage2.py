"""Must-show 2 to 7: one stage 2 on Slurm, disturbed. It ends as if nothing had happened."""

import signal
from collections.abc import Callable

import pytest

from tests.slurm.site import STEPS, Site, interrupt, job, slurm, until

Report = Callable[[str, Site, list[str]], None]


def test_must_show_2_fault_13_time_limit_twice(
    site: Site, expected: dict[str, str], report: Report
) -> None:
    """TERM before the limit, checkpoint, retry. A minute is Slurm's shortest limit."""
    site.edit("runtime: 1440", "runtime: 1\n    slurm_extra: \"'--signal=TERM@10'\"")
    controller = site.on_slurm(step_seconds=2.5)
    controller.succeeds(400)
    report("time limit", site, controller.jobs)
    assert site.outcome() == expected
    assert len(controller.jobs) >= 3
    events = [line["event"] for line in site.attempts]
    assert events == ["start", "stopped"] * (len(controller.jobs) - 1) + ["start", "done"]
    assert site.log.count("resuming before epoch") == len(controller.jobs) - 1
    assert len(site.steps) == STEPS, "a checkpoint was taken at once: no step is done twice"


def test_must_show_3_fault_14_preempted_and_requeued(
    site: Site, expected: dict[str, str], report: Report, fragile: None
) -> None:
    site.to_partition("spot")
    controller = site.on_slurm()
    mine = controller.submitted()
    site.trained(8)
    node = job(mine)["NodeList"]
    urgent = slurm("sbatch", "--parsable", "-p", "urgent", "-w", node, "--gres=gpu:a100:4",
                   "--wrap", "sleep 5", "-o", "/dev/null").strip()  # fmt: skip
    until(lambda: job(urgent)["JobState"] in ("RUNNING", "COMPLETED"), "the urgent job")
    controller.succeeds()
    report("preempted", site, controller.jobs)
    assert site.outcome() == expected
    assert controller.jobs == [mine], "the same job id"
    assert job(mine)["Restarts"] == "1"
    assert [line["event"] for line in site.attempts] == ["start", "stopped", "start", "done"]
    assert "received SIGTERM" in site.log, "logs of the first attempt are kept"
    assert "resuming before epoch" in site.log
    site.never_two_at_once()


def test_must_show_7_cancelled_by_hand(
    site: Site, expected: dict[str, str], report: Report
) -> None:
    controller = site.on_slurm("--retries", "0")
    mine = controller.submitted()
    site.trained(8)
    slurm("scancel", mine)
    assert controller.ends(120) == 1
    assert f"Slurm job {mine} was cancelled" in controller.text
    assert "snakemake results/demo/train/baseline/seed1/stage2.safetensors --profile slurm" in (
        controller.text
    )
    again = site.on_slurm()
    again.succeeds()
    report("scancel", site, [*controller.jobs, *again.jobs])
    assert site.outcome() == expected
    assert len(site.steps) == STEPS


@pytest.mark.parametrize("how", [signal.SIGKILL])
def test_must_show_6_fault_18_controller_killed(
    site: Site, expected: dict[str, str], report: Report, how: int
) -> None:
    controller = site.on_slurm(step_seconds=0.7)
    first = controller.submitted()
    site.trained(4)
    controller.send(how)
    controller.ends()
    again = site.on_slurm()
    second = again.submitted()
    assert job(second)["Dependency"].startswith(f"afterany:{first}")
    again.succeeds()
    report("controller killed", site, [first, second])
    assert site.outcome() == expected
    assert len(site.steps) == STEPS, "the first job was left to finish"
    site.never_two_at_once()


def test_must_show_6_fault_19_ctrl_c(site: Site, expected: dict[str, str], report: Report) -> None:
    controller = site.on_slurm()
    first = controller.submitted()
    site.trained(8)
    interrupt(controller)
    assert controller.ends(240) != 0
    until(lambda: job(first)["JobState"] == "CANCELLED", "the job to be cancelled")
    assert not (site.run / "stage2.safetensors").exists()
    again = site.on_slurm()
    again.succeeds()
    report("Ctrl-C", site, [*controller.jobs, *again.jobs])
    assert site.outcome() == expected
    site.never_two_at_once()

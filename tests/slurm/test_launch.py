"""Must-show 8: what `cluster.launch` puts into the queue goes back there before its time is up."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.slurm.site import STEPS, Site, job, slurm, time_is_nearly_up, until

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
RETRIEVAL = "results/demo/retrieval/baseline/seed1/A2A.json"
"""Needs stage 2, then features, then the retrieval: three jobs in a row."""


def launch(site: Site, *arguments: str, step_seconds: float = 0.0) -> tuple[str, Path]:
    """Run `cluster.launch`; the job and its log.

    Snakemake sets the number of threads of its jobs, on which the last bits depend: so do we.
    """
    threads = str(min(8, len(os.sched_getaffinity(0))))
    done = subprocess.run(
        [sys.executable, "-m", "cluster.launch", *arguments],
        cwd=site.path,
        env=site.environment(step_seconds, OMP_NUM_THREADS=threads),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"job (\d+) submitted; its log: tail -F (\S+)", done.stdout)
    assert found, done.stdout
    return found[1], Path(found[2])


def over(mine: str, log: Path, seconds: float = 300) -> str:
    """Wait for the end of a job; its state."""
    text = lambda: log.read_text() if log.exists() else "no log"  # noqa: E731
    until(lambda: job(mine)["JobState"] in OVER, f"job {mine}:\n{text()}", seconds)
    return job(mine)["JobState"]


def back_in_the_queue(mine: str) -> None:
    """Let the time of a job run out, once."""
    time_is_nearly_up(mine)
    until(lambda: job(mine)["Restarts"] != "0", f"job {mine} to go back into the queue")
    slurm("scontrol", "update", f"JobId={mine}", "TimeLimit=60")


def test_must_show_8_controller_at_its_own_time_limit(site: Site, expected: dict[str, str]) -> None:
    mine, log = launch(
        site, "controller", "--minutes", "60", "--notice", "20", "--partition", "cpu",
        "--", RETRIEVAL, step_seconds=1.0,
    )  # fmt: skip
    asked = job(mine)
    assert (asked["NumCPUs"], asked["TimeLimit"], asked["Partition"]) == ("2", "01:00:00", "cpu")
    assert asked["Requeue"] == "1"
    site.trained(2)
    back_in_the_queue(mine)
    assert over(mine, log, 400) == "COMPLETED", log.read_text()
    assert (site.path / RETRIEVAL).exists()
    assert site.outcome() == expected
    assert len(site.steps) == STEPS, "the training went on while no controller was there"
    assert not (site.path / ".snakemake/locks").exists()
    assert slurm("squeue", "--noheader", "--format=%Z").count(str(site.path)) == 0


def test_a_stage_at_its_time_limit_goes_on(site: Site, expected: dict[str, str]) -> None:
    mine, log = launch(
        site, "stage2", "--training", "baseline", "--minutes", "60", "--notice", "30",
        step_seconds=1.0,
    )  # fmt: skip
    asked = job(mine)
    assert (asked["NumCPUs"], asked["MinMemoryNode"]) == ("8", "48G")
    assert asked["TresPerJob"] == "gres:gpu:a100:1"
    site.trained(4)
    back_in_the_queue(mine)
    assert over(mine, log) == "COMPLETED", log.read_text()
    restarts = int(job(mine)["Restarts"])
    assert site.outcome() == expected
    assert len(site.steps) == STEPS, "a checkpoint was taken at once: no step is done twice"
    events = [line["event"] for line in site.attempts]
    assert events == ["start", "stopped"] * restarts + ["start", "done"]


def test_a_second_controller_is_refused_and_an_interrupted_one_cancels_its_jobs(site: Site) -> None:
    site.hold()  # the training lasts until the second has been refused
    mine, log = launch(site, "controller", "--partition", "cpu", "--", RETRIEVAL, step_seconds=2.0)
    site.trained(1)
    second, other = launch(site, "controller", "--partition", "cpu", "--", RETRIEVAL)
    assert over(second, other) == "FAILED"
    assert "Directory cannot be locked" in other.read_text()
    assert job(mine)["JobState"] == "RUNNING", log.read_text()
    site.release()
    site.trained(2)
    slurm("scancel", "--signal=INT", mine)
    assert over(mine, log) == "FAILED"
    assert "interrupted: cancelling jobs" in log.read_text()
    (first,) = re.findall(r"submitted with SLURM jobid (\d+)", log.read_text())
    until(lambda: job(first)["JobState"] == "CANCELLED", "the job to be cancelled")
    until(lambda: site.attempts[-1]["event"] == "stopped", "the checkpoint")

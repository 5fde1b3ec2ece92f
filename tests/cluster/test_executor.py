"""FAULTS 14 to 18 and 20 without a Slurm: what the executor makes of squeue and sacct."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import ResourceList
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from cluster import executor
from cluster.executor import End, Executor, Watch, states, was_killed
from cluster.query import Job
from tests.cluster.conftest import Commands

STAGE2 = "rule_stage2_wildcards_demo_a_1"


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def watch(warned: list[str]) -> Watch:
    return Watch(warned.append)


def end(watch: Watch, state: str, now: float, reason: str = "") -> End | None:
    return watch.end(Job("7", state, reason), now)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"])
def test_a_job_that_waits_or_runs_has_not_ended(watch: Watch, state: str) -> None:
    assert end(watch, state, 0) is None
    assert end(watch, state, 1e9) is None


CANCELLED = "was cancelled{}: it counts as failed, and is submitted again while retries are left"
ENDS = {
    "CANCELLED by 1000": CANCELLED.format(" by user 1000"),
    "CANCELLED": CANCELLED.format(""),
    **{
        state: f"ended as {state}"
        for state in ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
    },
}


@pytest.mark.parametrize("state", ENDS)
def test_fault_16_an_end_without_success_is_an_error_at_once(watch: Watch, state: str) -> None:
    ended = end(watch, state, 0)
    assert ended is not None
    assert str(ended.error).startswith(f"Slurm job 7 {ENDS[state]}")
    assert not ended.abandoned


@pytest.mark.parametrize(
    ("state", "seconds"), [("PREEMPTED", 60), ("NODE_FAIL", 60), ("MISSING", 120)]
)
def test_fault_14_fault_15_what_slurm_does_not_start_again_is_abandoned_after_a_while(
    watch: Watch, state: str, seconds: int
) -> None:
    assert end(watch, "MISSING", 0) is None, "it was submitted just now"
    assert end(watch, "MISSING", 500) is None
    for requeued in (600, 1000):  # a while that begins anew each time
        assert end(watch, state, requeued) is None
        assert end(watch, state, requeued + seconds - 1) is None
        assert end(watch, "RUNNING", requeued + seconds) is None
    assert end(watch, state, 2000) is None
    ended = end(watch, state, 2000 + seconds)
    assert ended is not None
    assert ended.abandoned
    assert str(ended.error).startswith("Slurm job 7 ")


def test_a_job_that_will_never_start_is_reported_once(watch: Watch, warned: list[str]) -> None:
    for reason in ("Priority", "JobHeldUser", "JobHeldUser"):
        assert end(watch, "PENDING", 0, reason) is None
    (line,) = warned
    assert "`scontrol release 7`" in line


DOWN = "exit 1"
ASKED = "*--user=$(id -un)*--format=%i?%T?%r?%k?%Z*--name=run*"
RUNS = f"case $* in {ASKED}) ;; *) exit 1; esac; echo '7|RUNNING|None|rule_x|/tmp'"


@pytest.mark.parametrize(
    ("squeue", "sacct", "first", "known"),
    [
        (RUNS, DOWN, "squeue", "RUNNING MISSING"),
        (RUNS, "echo '8|COMPLETED'", "squeue", "RUNNING COMPLETED"),
        (f"{RUNS}; echo '8|RUNNING|||/'", "echo '7|CANCELLED by 5'; echo '8|FAILED'", "sacct",
         "CANCELLED by 5 FAILED"),
        (DOWN, "echo '7|RUNNING'", "squeue", "RUNNING"),
        (DOWN, DOWN, "squeue", None),
    ],
    ids=["no accounting", "forgotten by squeue", "sacct first", "controller down", "all down"],
)  # fmt: skip
def test_fault_17_one_command_is_asked_after_the_other(
    commands: Commands, squeue: str, sacct: str, first: str, known: str | None
) -> None:
    commands(squeue=squeue, sacct=sacct)
    jobs = states("run", ["7", "8"], first=first)
    assert known == (None if jobs is None else " ".join(jobs[i].state for i in sorted(jobs)))


@pytest.fixture
def slurm(watch: Watch) -> Any:
    """An executor without a workflow, which notes what it reports."""
    made = Executor.__new__(Executor)
    made._watch, made._checked, made.run_uuid = watch, [], "run"
    made.logger = Mock(warning=watch.warn)
    settings = Mock(init_seconds_before_status_checks=20, keep_successful_logs=False)
    made.workflow = Mock(executor_settings=settings)
    made.next_seconds_between_status_checks = 10
    made.status_rate_limiter = nullcontext()
    made.reports = {}
    made.report_job_success = lambda job: made.reports.update({job.external_jobid: None})
    made.report_job_error = lambda job, msg, aux_logs: made.reports.update(
        {job.external_jobid: msg}
    )
    return made


def check(slurm: Any, jobs: list[Any]) -> list[str]:
    """One status check; the jobs that go on."""

    async def collect() -> list[str]:
        return [job.external_jobid async for job in slurm.check_active_jobs(jobs)]

    return asyncio.run(collect())


def test_fault_17_no_job_is_forgotten_and_every_end_is_reported(
    slurm: Any, warned: list[str], tmp_path: Path, commands: Commands
) -> None:
    logs = {job: tmp_path / f"log{job}" for job in "789"}
    jobs = [SimpleNamespace(external_jobid=i, aux={"slurm_logfile": logs[i]}) for i in logs]
    for log in logs.values():
        log.touch()
    commands(squeue=DOWN, sacct=DOWN)
    for _ in range(3):
        assert check(slurm, jobs) == ["7", "8", "9"]
    assert len(warned) == 1
    assert "Slurm does not answer" in warned[0]
    commands(squeue="echo '7|COMPLETED|||/'; echo '8|TIMEOUT|||/'; echo '9|RUNNING|||/'")
    assert check(slurm, jobs) == ["9"]
    assert "Slurm answers again" in warned[1]
    assert slurm.reports == {"7": None, "8": "Slurm job 8 ended as TIMEOUT. "}
    left = [job for job, log in logs.items() if log.exists()]
    assert left == ["8", "9"], "the log of a successful job is deleted"
    assert slurm.next_seconds_between_status_checks == 20
    for _ in range(9):
        check(slurm, jobs[2:])
    assert len(warned) == 2
    assert slurm.next_seconds_between_status_checks == executor.LONGEST_PAUSE


def test_an_abandoned_job_is_cancelled_before_it_is_submitted_again(
    slurm: Any, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "GIVEN_UP", {"PREEMPTED": (0, "was preempted")})
    commands(squeue="echo '7|PREEMPTED|||/'", scancel="echo $1 > cancelled")
    job = SimpleNamespace(external_jobid="7", aux={"slurm_logfile": tmp_path / "log"})
    assert check(slurm, [job]) == []
    assert (tmp_path / "cancelled").read_text() == "7\n"
    assert slurm.reports["7"].startswith("Slurm job 7 was preempted: it counts as failed")


def test_ctrl_c_cancels_jobs_whose_status_is_just_being_checked(
    slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr(plugin.Executor, "cancel_jobs", lambda self, jobs: cancelled.extend(jobs))
    job = SimpleNamespace(external_jobid="7")
    monkeypatch.setattr(executor, "states", lambda *_, **__: slurm.cancel_jobs([]))
    assert check(slurm, [job]) == ["7"]
    assert cancelled == [job]


def test_fault_18_a_job_waits_for_those_on_the_same_outputs(
    slurm: Any, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = f"""\
11|RUNNING||{STAGE2}|{tmp_path}
12|RUNNING||{STAGE2}|{tmp_path}/elsewhere
13|RUNNING||rule_stage1_wildcards_demo_a_1|{tmp_path}
14|PENDING||{STAGE2}|{tmp_path}
15|RUNNING||(null)|{tmp_path}"""
    commands(squeue=f"cat <<end\n{queue}\nend")
    submitted: list[Any] = []
    monkeypatch.setattr(plugin.Executor, "run_jobs", lambda self, jobs: submitted.extend(jobs))
    resources = [ResourceList(fromdict={"slurm_extra": "--signal=X"}) for _ in range(2)]
    jobs = [
        SimpleNamespace(name="stage2", wildcards=["demo", "a", seed], resources=asked)
        for seed, asked in zip("12", resources, strict=True)
    ]
    slurm.run_jobs(jobs)
    assert submitted == jobs
    assert resources[0].get("slurm_extra") == "--signal=X --dependency=afterany:11:14"
    assert resources[1].get("slurm_extra") == "--signal=X"


def test_fault_17_nothing_is_submitted_until_slurm_answers(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    commands(squeue="echo x >> asked; [ $(wc -l < asked) = 3 ]")
    assert executor.patient_queue(warned.append) == []
    assert len(warned) == 1
    commands(squeue=DOWN)
    with pytest.raises(WorkflowError, match="try again when Slurm is back"):
        executor.patient_queue(warned.append, patience=0)


def test_the_plugin_calls_what_is_overridden() -> None:
    """Fails if another version of the plugin is not the subclass's any more."""
    executor.install()
    assert ExecutorPluginRegistry().get_plugin("slurm").executor is Executor
    for name in ("run_jobs", "check_active_jobs", "cancel_jobs", "__post_init__"):
        assert name in plugin.Executor.__dict__, name
    assert "check_active_jobs" in RemoteExecutor._wait_for_jobs.__code__.co_names
    assert "run_uuid" in plugin.Executor.__post_init__.__code__.co_names
    assert "slurm_logfile" in plugin.Executor.run_job.__code__.co_consts
    assert callable(plugin.Executor.get_status_command)


@pytest.mark.parametrize(
    ("events", "killed"),
    [
        ("", False),
        ("start", True),
        ("start stopped", False),
        ("start failed", False),
        ("start stopped start", True),
    ],
)
def test_fault_20_was_killed(tmp_path: Path, events: str, killed: bool) -> None:
    ledger = tmp_path / "attempts.jsonl"
    for event in events.split():
        with ledger.open("a") as lines:
            lines.write(f'{{"event": "{event}", "time": "2026-01-01T00:00:00Z"}}\n')
    for end in ("", '{"event": "sta'):  # the last line of a process that was killed
        with ledger.open("a") as lines:
            lines.write(end)
        assert was_killed(tmp_path) is killed

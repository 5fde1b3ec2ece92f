"""Snakemake's Slurm executor, with status checks that lose no job and wait for none forever.

The executor plugin (2.8) takes `CANCELLED by 1000` for an unknown state, waits forever for a job
that Slurm took away for good, and forgets its jobs while Slurm does not answer. This subclass
overrides three methods of the public executor interface; it inherits the submission of jobs.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake_executor_plugin_slurm import Executor as SlurmExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from cluster import query
from reid.errors import UserError
from reid.train import attempts

COUNTED = "it counts as failed, and is submitted again while retries are left"
FAILED = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
MISSING = "MISSING"
"""The state of a job that Slurm does not know."""
GIVEN_UP = {
    "PREEMPTED": (60, "was preempted and Slurm did not put it back into its queue"),
    "NODE_FAIL": (60, "lost its node and Slurm did not put it back into its queue"),
    MISSING: (120, "is known neither to squeue nor to sacct any more: how it ended is unknown"),
}
"""States that pass by themselves or never: after so many seconds, never."""
HELD = (
    "launch failed requeued held",
    "JobHeldUser",
    "JobHeldAdmin",
    "DependencyNeverSatisfied",
    "BadConstraints",
    "PartitionTimeLimit",
    "PartitionNodeLimit",
)
"""Reasons for which a job stays in the queue until somebody does something."""
LONGEST_PAUSE = 60
"""Seconds between two status checks."""


@dataclass(frozen=True)
class End:
    """How a job ended; `error` is None after success. Slurm may still start an `abandoned` one."""

    error: str | None = None
    abandoned: bool = False


@dataclass
class Watch:
    """Decides whether jobs have ended; `warn` prints what a user should know, once."""

    warn: Callable[[str], None]
    _since: dict[str, tuple[str, float]] = field(default_factory=dict)
    _warned: set[tuple[str, str]] = field(default_factory=set)
    _silent_since: float | None = None

    def answered(self, answered: bool, now: float) -> None:
        """Note whether Slurm answers at all; `now`: seconds of any clock."""
        if answered and self._silent_since is not None:
            self.warn(f"Slurm answers again, after {now - self._silent_since:.0f} s")
            self._silent_since = None
        elif not answered and self._silent_since is None:
            self.warn("Slurm does not answer. Its jobs continue; waiting. There is nothing to do")
            self._silent_since = now

    def end(self, job: query.Job, now: float) -> End | None:
        """How a job ended, or None while it waits or runs."""
        state, _, user = job.state.partition(" by ")
        if state == MISSING and job.id not in self._since:
            return None  # submitted just now
        if self._since.get(job.id, ("", 0.0))[0] != state:
            self._since[job.id] = (state, now)
        if state == "PENDING" and job.reason in HELD and (job.id, job.reason) not in self._warned:
            self._warned.add((job.id, job.reason))
            self.warn(
                f"Slurm job {job.id} will not start: {job.reason}. If nothing else helps: "
                f"`scontrol release {job.id}`, or `scancel {job.id}`, after which Snakemake "
                "submits it again"
            )
        if state == "COMPLETED":
            return End()
        if state == "CANCELLED":
            who = f" by user {user}" if user else ""
            how = f"was cancelled{who}: {COUNTED}. To stop the run press Ctrl-C here"
            return End(f"Slurm job {job.id} {how}")
        if state in FAILED:
            return End(f"Slurm job {job.id} ended as {state}")
        seconds, what = GIVEN_UP.get(state, (float("inf"), ""))
        if now - self._since[job.id][1] >= seconds:
            return End(f"Slurm job {job.id} {what}: {COUNTED}", abandoned=True)
        return None


def states(run: str, ids: Sequence[str], *, first: str = "squeue") -> dict[str, query.Job] | None:
    """The jobs `ids` of a run as squeue or sacct shows them; None where neither answers.

    The `first` is asked, then the other one for jobs that the first does not know. A job that
    squeue and sacct do not know is MISSING; one that only sacct was asked for is left out.
    """
    known: dict[str, query.Job] = {}
    answers = []
    for name in sorted(("squeue", "sacct"), key=lambda name: name != first):
        if unknown := [job for job in ids if job not in known]:
            ask = _by_squeue if name == "squeue" else _by_sacct
            with suppress(UserError):  # the other command may answer
                known.update({job.id: job for job in ask(run, unknown)})
                answers.append(name)
    if "squeue" in answers:
        known.update({job: query.Job(job, MISSING) for job in ids if job not in known})
    return known if answers else None


def _by_squeue(run: str, _: Sequence[str]) -> list[query.Job]:
    return query.jobs("--states=all", "--array", f"--name={run}")


def _by_sacct(_: str, ids: Sequence[str]) -> list[query.Job]:
    command = ["sacct", "-X", "--parsable2", "--noheader", "--format=JobID,State"]
    lines = query.ask(*command, f"--jobs={','.join(ids)}").splitlines()
    pairs = (line.split("|", 1) for line in lines if "|" in line)
    return [query.Job(job, state) for job, state in pairs]


def predecessors(queue: Sequence[query.Job], rule: str, wildcards: Sequence[str]) -> list[str]:
    """Ids of the jobs in the queue, of an earlier Snakemake here, that make the same outputs."""
    comment = f"rule_{rule}_wildcards_{'_'.join(wildcards)}".replace("/", "_")
    return [job.id for job in queue if job.comment == comment and job.folder == Path.cwd()]


def patient_queue(warn: Callable[[str], None], patience: float = 600) -> list[query.Job]:
    """The queue, once Slurm answers. Raises WorkflowError after `patience` seconds without."""
    deadline = None
    while True:
        try:
            return query.jobs()
        except UserError as error:
            if deadline is None:
                warn(f"{error}; waiting for it")
                deadline = time.monotonic() + patience
            if time.monotonic() >= deadline:
                raise WorkflowError(
                    f"{error}: whether jobs of an earlier run are still at work is unknown, so "
                    "none is submitted: try again when Slurm is back"
                ) from None
        time.sleep(5)


class Executor(SlurmExecutor):  # type: ignore[misc] # the plugin has no types
    """The executor of the plugin, with other status checks."""

    next_seconds_between_status_checks: int

    def __post_init__(self, test_mode: bool = False) -> None:
        """Called by the constructor of the interface."""
        super().__post_init__(test_mode)
        self._watch = Watch(self.logger.warning)
        self._checked: list[Any] = []

    def run_jobs(self, jobs: Sequence[Any]) -> None:
        """Submit jobs, each to wait in the queue for those that still work on its outputs.

        Snakemake does not find the jobs of a controller that was killed.
        """
        queue = patient_queue(self.logger.warning)
        for job in jobs:
            if ids := predecessors(queue, job.name, job.wildcards):
                extra = job.resources.get("slurm_extra", "")
                job.resources.slurm_extra = f"{extra} --dependency=afterany:{':'.join(ids)}".strip()
        super().run_jobs(jobs)

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
        """Report the jobs that have ended; yield the others."""
        settings = self.workflow.executor_settings
        pause = self.next_seconds_between_status_checks + 10
        self.next_seconds_between_status_checks = min(pause, LONGEST_PAUSE)
        if not active_jobs:
            return
        self._checked = list(active_jobs)
        ids = [job.external_jobid for job in active_jobs]
        async with self.status_rate_limiter:
            first = self.get_status_command()
            known = await asyncio.to_thread(states, self.run_uuid, ids, first=first)
        now = time.monotonic()
        self._watch.answered(known is not None, now)
        for job in active_jobs:
            shown = (known or {}).get(job.external_jobid)
            end = None if shown is None else self._watch.end(shown, now)
            if end is None:
                yield job
                continue
            self._checked.remove(job)
            self._report(job, end)
            self.next_seconds_between_status_checks = settings.init_seconds_before_status_checks
        self._checked = []

    def cancel_jobs(self, active_jobs: list[Any]) -> None:
        """Cancel all jobs, also those whose status is just being checked."""
        super().cancel_jobs([*active_jobs, *self._checked])

    def _report(self, job: Any, end: End) -> None:
        log: Path = job.aux["slurm_logfile"]
        if end.abandoned:
            subprocess.run(["scancel", job.external_jobid], capture_output=True, timeout=60)
        if end.error is not None:
            self.report_job_error(job, msg=f"{end.error}. ", aux_logs=[str(log)])
            return
        self.report_job_success(job)
        if not self.workflow.executor_settings.keep_successful_logs:
            log.unlink(missing_ok=True)


def install() -> None:
    """Let `executor: slurm` be the executor of this module, in this process."""
    ExecutorPluginRegistry().get_plugin("slurm").executor = Executor


def was_killed(folder: Path) -> bool:
    """Whether the last attempt at a training stage ended unrecorded: out of memory, or a lost node.

    A trainer that is asked to stop, or fails, records so in its work folder (reid.train.attempts).
    """
    made = attempts.read(folder)
    return bool(made) and made[-1]["event"] == "start"

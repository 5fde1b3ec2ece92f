"""Stands between Snakemake's Slurm executor and Slurm, where that executor would wait for ever.

It takes `CANCELLED by 1000` for a state it does not know, waits for a preempted job or one of a
dead node that Slurm will never start again, forgets its jobs when Slurm does not answer, and waits
for jobs that nobody remembers. `Watch.settle` turns what Slurm says into what the executor
understands; what happened, and what to type, is told in a line.
"""

import shlex
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from reid.errors import UserError

States: TypeAlias = dict[str, str]
Answer: TypeAlias = tuple[States | None, float | None]

LINGER_SECONDS = 60.0
"""A job that Slurm took away itself is back in the queue within seconds, or never."""
VANISHED_SECONDS = 120.0
"""A job that was seen, has not ended, and is not known this long after, is lost."""
ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
TAKEN = {"PREEMPTED": "was preempted", "NODE_FAIL": "lost its node"}
HELD = {
    "launch failed requeued held",
    "JobHeldUser",
    "JobHeldAdmin",
    "DependencyNeverSatisfied",
    "BadConstraints",
    "PartitionTimeLimit",
    "PartitionNodeLimit",
}
"""Reasons for which a job stays in the queue until somebody does something."""


@dataclass
class _Seen:
    state: str
    since: float


@dataclass
class Watch:
    """What is remembered of the jobs of one run of Snakemake."""

    tell: Callable[[str], None]
    give_up: Callable[[str], None]
    """Called with a job that is counted as failed, so that Slurm does not start it after all."""
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _silent_since: float | None = None

    def settle(self, said: Mapping[str, str] | None, now: float) -> States:
        """The states to go on with: of all jobs seen so far, if Slurm said nothing.

        `said`: states by job as squeue or sacct print them; `now`: seconds of any clock.
        """
        if said is None:
            self._silence(now)
            return {job: seen.state for job, seen in self._seen.items()}
        if self._silent_since is not None:
            self.tell(f"Slurm answers again, after {now - self._silent_since:.0f} s")
            self._silent_since = None
        states = {job: self._state(job, printed, now) for job, printed in said.items()}
        for job in [*self._seen]:
            if job not in said and (state := self._missing(job, now)):
                states[job] = state
        return states

    def lacks(self, said: Mapping[str, str]) -> bool:
        """Whether a job that has not ended is not among `said`."""
        return any(
            job not in said and job not in self._failed and seen.state not in ENDED
            for job, seen in self._seen.items()
        )

    def hold(self, reasons: Mapping[str, str]) -> None:
        """Tell of jobs that will not start by themselves; `reasons` of squeue by job."""
        for job, reason in reasons.items():
            if reason.strip("()") in HELD:
                self._once(
                    job,
                    f"is in the queue but will not start: {reason}. If nothing else helps: "
                    f"`scontrol release {job}`, or `scancel {job}`, after which Snakemake submits "
                    "it again",
                )

    def _state(self, job: str, printed: str, now: float) -> str:
        state, _, by = printed.partition(" by ")
        seen = self._seen.get(job)
        if seen is None or seen.state != state:
            seen = self._seen[job] = _Seen(state, now)
        if job in self._failed:
            return "CANCELLED"
        if state == "CANCELLED":
            who = f" by user {by}" if by else ""
            self._once(
                job,
                f"was cancelled{who}: it counts as failed, and is submitted again while retries "
                "are left. To stop the run press Ctrl-C here; the same command goes on",
            )
        elif state in TAKEN and now - seen.since >= LINGER_SECONDS:
            return self._fail(
                job,
                f"{TAKEN[state]} and Slurm did not put it back into its queue: it counts as "
                "failed, and is submitted again while retries are left. `python -m cluster.doctor` "
                "says whether this cluster requeues",
            )
        return state

    def _missing(self, job: str, now: float) -> str | None:
        seen = self._seen[job]
        if seen.state in ENDED or job in self._failed:
            del self._seen[job]  # has been dealt with, and was forgotten by Slurm since
            return None
        if seen.state != "MISSING":
            self._seen[job] = seen = _Seen("MISSING", now)
        if now - seen.since < VANISHED_SECONDS:
            return None
        del self._seen[job]
        return self._fail(
            job,
            "is known neither to squeue nor to sacct any more: how it ended is not known, so it "
            "counts as failed, and is submitted again while retries are left",
        )

    def _fail(self, job: str, why: str) -> str:
        self._failed.add(job)
        self._once(job, why)
        self.give_up(job)
        return "CANCELLED"

    def _silence(self, now: float) -> None:
        if self._silent_since is None:
            self._silent_since = now
            self.tell(
                "Slurm does not answer. Its jobs go on without it; waiting. There is nothing to do"
            )

    def _once(self, job: str, text: str) -> None:
        if (job, text) not in self._told:
            self._told.add((job, text))
            self.tell(f"Slurm job {job} {text}.")


def install(tell: Callable[[str], None]) -> None:
    """Make the Slurm executor of this process ask through a Watch; `tell` prints a line.

    Raises UserError with a version of the executor that asks in another way.
    """
    import snakemake_executor_plugin_slurm as plugin

    try:
        ask = plugin.query_job_status
        others = {
            "squeue": plugin.query_job_status_sacct,
            "sacct": plugin.query_job_status_squeue,
        }
    except AttributeError as error:
        raise UserError(
            "cluster/watch.py does not know this version of snakemake-executor-plugin-slurm "
            f"({error}): install the one of constraints.txt"
        ) from None
    plugin.query_job_status = patient(ask, others, Watch(tell, give_up=_scancel))


def patient(
    ask: Callable[[str, Any], Awaitable[Answer]],
    others: Mapping[str, Callable[[str], str]],
    watch: Watch,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[str, Any], Awaitable[Answer]]:
    """`ask(command, logger)` that always has an answer: of another command, or the last one.

    `others`: the command to ask in place of another, by its name, for the name of a run.
    """

    async def query(command: str, logger: Any) -> Answer:
        words = shlex.split(command)
        states, seconds = await ask(command, logger)
        if states is None or watch.lacks(states):
            more, _ = await ask(others[words[0]](words[-1]), logger)
            if more is not None:
                states = {**more, **(states or {})}
        run = shlex.quote(words[-1])
        reasons, _ = await ask(
            f"squeue --noheader --states=PD --format='%i|%r' --name {run}", logger
        )
        watch.hold(reasons or {})
        return watch.settle(states, clock()), seconds or 0.0

    return query


def _scancel(job: str) -> None:
    subprocess.run(["scancel", job], capture_output=True, timeout=60)

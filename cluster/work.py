"""What a job of submitit runs: Snakemake, or one stage of one training. Both can be resumed.

Shortly before the time limit submitit calls `checkpoint`, and then puts the job back into the
queue, where it starts again under the same id.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from cluster import query
from reid.errors import Stopped, UserError

NOTICE = signal.SIGUSR2
"""The signal by which submitit learns that the time limit is near."""
LOCKS = Path(".snakemake/locks")


class Work:
    """A command that is asked to end before the time limit of its job: submitit pickles this."""

    def __init__(self, root: Path, arguments: Sequence[str], *, grace: float) -> None:
        """`root`: working directory. `grace`: seconds that the command gets to end."""
        self.root, self.arguments, self.grace = root, list(arguments), grace
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """One start of the command."""
        raise NotImplementedError

    def checkpoint(self) -> DelayedSubmission:
        """Stop the command; returns the work to continue with. Called in a signal handler."""
        self._stop()
        return DelayedSubmission(type(self)(self.root, self.arguments, grace=self.grace))

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end; returns the exit code, negative for a signal.

        Slurm sends NOTICE to every process of the job step; only submitit understands it.
        """
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            preexec_fn=lambda: signal.signal(NOTICE, signal.SIG_IGN),
        )
        # Without a lock of `subprocess`, which a signal handler might find taken.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return self._process.wait()

    def _stop(self) -> bool:
        """Send SIGTERM, and SIGKILL after `grace` seconds; returns whether that was needed."""
        deadline = time.monotonic() + self.grace
        self._send(signal.SIGTERM)
        while (killed := not self._ended()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._send(signal.SIGKILL)
        while not self._ended():
            time.sleep(0.1)
        return killed

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and not self._ended():
            os.kill(self._process.pid, number)

    def _ended(self) -> bool:
        """Whether the command has ended, without reaping it: `_run` does that."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return not self._process or bool(os.waitid(os.P_PID, self._process.pid, options))
        except ChildProcessError:
            return True


class Stage(Work):
    """Runs `reid ARGUMENTS`. The trainer itself resumes: a second start is the same command."""

    def __call__(self) -> None:
        """One start. Raises UserError when the verb fails, Stopped when it was asked to stop."""
        os.chdir(self.root)
        code = self._run([sys.executable, "-m", "reid", *self.arguments], os.environ)
        if code == Stopped.exit_code:
            if JobEnvironment().global_rank:
                return  # the first process reports for all, and requeues the job
            raise Stopped("stopped in time, progress is saved: launch it again to resume")
        if code:
            raise UserError(f"`reid {' '.join(self.arguments)}` ended with code {code}, see above")


class Controller(Work):
    """Runs `snakemake ARGUMENTS`.

    Jobs that run or wait at the controller's time limit are left alone: they keep their GPU and
    their place in the queue. The next start submits jobs for the same outputs behind them (see
    `cluster.executor`), which find the work done.
    """

    _folder_was_free = False

    def __call__(self) -> None:
        """One start. Raises UserError when the workflow fails."""
        os.chdir(self.root)
        # Ctrl-C and `scancel --signal=INT` reach Snakemake too, which cancels its jobs first.
        signal.signal(signal.SIGINT, lambda *_: print("interrupted: cancelling jobs", flush=True))
        signal.signal(signal.SIGTERM, self._terminated)
        self._folder_was_free = not any(LOCKS.glob("*.lock"))
        code = self._run(self._command(), outside(os.environ))
        if code:
            raise UserError(
                f"Snakemake ended with code {code}, see above: launch the controller again once "
                "the cause is gone; finished steps are kept"
            )

    def checkpoint(self) -> DelayedSubmission:
        """Stop Snakemake, but none of its running jobs."""
        work = super().checkpoint()
        # Jobs behind others of the same outputs have no place in the queue to lose, and the next
        # start submits them again.
        try:
            waiting = waiting_behind_others(query.jobs(), self.root)
        except UserError as error:
            print(f"jobs that wait for others stay in the queue: {error}", flush=True)
            return work
        if waiting:
            subprocess.run(["scancel", *waiting], check=False)
        return work

    def _terminated(self, *_: Any) -> None:
        """Preempted or cancelled: SIGKILL follows within seconds."""
        self.grace = 0.0
        self._stop()

    def _stop(self) -> bool:
        """Unlocks the folder if Snakemake was killed, unless the lock is another one's."""
        killed = super()._stop()
        if killed and self._folder_was_free:
            subprocess.run([*self._command(), "--unlock"], env=outside(os.environ), check=False)
        return killed

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "snakemake", *self.arguments]


def waiting_behind_others(jobs: Sequence[query.Job], root: Path) -> list[str]:
    """Ids of the jobs of the workflow in `root` that a dependency holds in the queue."""
    return [
        job.id
        for job in jobs
        if job.reason == "Dependency" and job.comment.startswith("rule_") and job.folder == root
    ]


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables of the job that we are in, for other jobs."""
    ours = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(ours) or name == "SLURM_CONF"
    }

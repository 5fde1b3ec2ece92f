"""Snakemake itself as a job of Slurm, which ends at its time limit and goes on as often as needed.

Jobs that run or wait when the controller's time is up are left alone: they keep their GPU and
their place in the queue. The next start submits jobs for the same outputs that wait until the old
ones are over (`cluster.live`), and so take over what those have done.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import gethostname
from typing import Any

from submitit.helpers import DelayedSubmission

from cluster.child import Child
from reid.errors import UserError
from reid.files import read_json, write_json

STATE = Path(".snakemake/controller.json")
"""There while a controller runs Snakemake: the id of its job. It stays if that was killed."""


class Controller:
    """Runs Snakemake in `root`: what submitit pickles, calls, and asks for a checkpoint."""

    def __init__(self, root: Path, arguments: Sequence[str], *, grace: float) -> None:
        """`arguments`: of Snakemake. `grace`: seconds that it gets to end when time is up."""
        self.root, self.arguments, self.grace = root, list(arguments), grace
        self._snakemake: Child | None = None

    def __call__(self) -> None:
        """One start of the controller. Raises UserError when the workflow fails."""
        os.chdir(self.root)
        command = [sys.executable, "-m", "snakemake", *self.arguments]
        environment = outside(os.environ)
        me = {"job": os.environ.get("SLURM_JOB_ID"), "host": gethostname(), "pid": os.getpid()}
        if _was_killed(me):
            subprocess.run([*command, "--unlock"], env=environment, check=True)
        write_json(STATE, me)
        # Ctrl-C and `scancel --signal=INT` reach Snakemake too, which cancels its jobs first.
        signal.signal(signal.SIGINT, lambda *_: print("interrupted: cancelling jobs", flush=True))
        self._snakemake = Child(command, environment)
        code = self._snakemake.wait()
        if code < 0:
            raise UserError(f"Snakemake was killed by signal {-code}: launch the controller again")
        STATE.unlink()
        if code:
            raise UserError(
                f"Snakemake ended with code {code}, see above: launch the controller again once "
                "the cause is gone; what is done is kept"
            )

    def checkpoint(self) -> DelayedSubmission:
        """End Snakemake, but none of its jobs; what to go on with.

        submitit calls it as the time runs out, and then puts this job back into the queue.
        """
        if self._snakemake is not None:
            self._snakemake.stop(grace=self.grace)
            _cancel_behind_others(self.root)
        return DelayedSubmission(Controller(self.root, self.arguments, grace=self.grace))


def _was_killed(me: Mapping[str, Any]) -> bool:
    """Whether a controller that is no more has left its Snakemake's lock behind.

    Raises UserError if another one is at work here.
    """
    if not STATE.exists():
        return False
    former = read_json(STATE)
    if former["job"] is not None:
        alive = former["job"] != me["job"] and _queued(former["job"])
    else:
        alive = former["host"] != me["host"] or _running(former["pid"])
    if alive:
        raise UserError(
            f"{STATE}: a controller is at work here (job {former['job']}, process {former['pid']} "
            f"on {former['host']}): wait for it or stop it; delete the file if it is long gone"
        )
    return True


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _queued(job: str) -> bool:
    """Whether Slurm has the job and it has not ended. Raises UserError if Slurm says nothing."""
    done = subprocess.run(
        ["squeue", "--noheader", f"--jobs={job}", "--format=%T"], capture_output=True, text=True
    )
    if done.returncode and "Invalid job id" not in done.stderr:
        raise UserError(f"squeue does not answer ({done.stderr.strip()}): try again later")
    return bool(done.stdout.strip())


def _cancel_behind_others(root: Path) -> None:
    """Cancel the workflow's jobs that wait for others of the same outputs: they have no place in
    the queue to lose, and the next start submits them anew."""
    listed = subprocess.run(
        ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%r|%k|%Z"],
        capture_output=True,
        text=True,
    ).stdout
    if idle := behind_others(listed, root):
        subprocess.run(["scancel", *idle], check=False)


def behind_others(listed: str, root: Path) -> list[str]:
    """Ids of the jobs in `listed`, lines `id|reason|comment|work dir`, that a dependency holds."""
    jobs = (line.split("|", 3) for line in listed.splitlines() if line.count("|") >= 3)
    return [
        job
        for job, reason, comment, where in jobs
        if reason == "Dependency" and comment.startswith("rule_") and Path(where) == root
    ]


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the traces of the job that we are in: it must not shape others."""
    ours = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(ours) or name == "SLURM_CONF"
    }

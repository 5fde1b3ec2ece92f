"""Slurm's queue: the one place that lists jobs."""

import getpass
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reid.errors import UserError

FORMAT = "%i|%T|%r|%k|%Z"


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it."""

    id: str
    state: str
    reason: str
    """Why it waits."""
    comment: str
    """From the Slurm executor: the rule and its wildcards."""
    folder: Path
    """Its working directory."""


def listed(*options: str) -> list[Job]:
    """The user's jobs, selected by options of squeue. Raises UserError if Slurm does not answer."""
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", f"--format={FORMAT}"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise UserError("squeue: command not found") from None
    except subprocess.TimeoutExpired:
        raise UserError("squeue does not answer within a minute") from None
    if done.returncode:
        raise UserError(f"squeue fails: {done.stderr.strip()}")
    lines = (line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4)
    return [
        Job(identifier, state, reason, comment, Path(folder))
        for identifier, state, reason, comment, folder in lines
    ]

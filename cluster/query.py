"""Questions to Slurm: what a command prints, and the jobs in the queue."""

import getpass
import subprocess
from dataclasses import dataclass
from pathlib import Path

from reid.errors import UserError

FORMAT = "%i|%T|%r|%k|%Z"


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it; sacct knows only its state."""

    id: str
    state: str
    reason: str = ""
    """Why it waits."""
    comment: str = ""
    """From the Slurm executor: the rule and its wildcards."""
    folder: Path = Path()
    """Its working directory."""


def jobs(*options: str) -> list[Job]:
    """The user's jobs, selected by options of squeue. Raises UserError if Slurm does not answer."""
    command = ("squeue", "--noheader", f"--user={getpass.getuser()}", f"--format={FORMAT}")
    lines = (line.split("|", 4) for line in ask(*command, *options).splitlines())
    return [Job(job, state, why, note, Path(folder)) for job, state, why, note, folder in lines]


def ask(*command: str) -> str:
    """What a command of Slurm prints. Raises UserError if it fails or is silent for a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: command not found") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} does not answer within a minute") from None
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` fails: {done.stderr.strip()}: is Slurm running?")
    return done.stdout

"""Slurm jobs of earlier controllers that are still at work in this folder.

A controller that was killed leaves its jobs running, and Snakemake does not find them again. A
new job for the same outputs waits in the queue until the old one is over, and so takes over what
that one had saved; two never work side by side.
"""

import getpass
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reid.errors import UserError


def dependency(rule: str, wildcards: Sequence[str]) -> str:
    """The option of sbatch that makes a job of the rule wait for live ones; empty without any.

    Raises UserError if Slurm does not answer for
    ten minutes: then nobody knows whether a job is alive.
    """
    ids = alive(_squeue(), rule, wildcards, Path.cwd())
    return f"--dependency=afterany:{':'.join(ids)}" if ids else ""


def alive(listed: str, rule: str, wildcards: Sequence[str], folder: Path) -> list[str]:
    """Ids of the jobs in `listed` (lines `id|work dir|comment`) that make the same outputs.

    The Slurm executor of Snakemake writes rule and wildcards into the comment.
    """
    comment = f"rule_{rule}_wildcards_{'_'.join(wildcards)}".replace("/", "_")
    jobs = (line.split("|", 2) for line in listed.splitlines() if line.count("|") >= 2)
    return [job for job, where, said in jobs if said == comment and Path(where) == folder]


def _squeue(patience: float = 600.0) -> str:
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%Z|%k"]
    end = time.monotonic() + patience
    told = False
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return done.stdout
        if time.monotonic() > end:
            raise UserError(
                f"squeue does not answer ({done.stderr.strip()}): whether jobs of an earlier run "
                "are still at work is not known, so none is submitted: try again when Slurm is back"
            )
        if not told:
            print("squeue does not answer; waiting for it", file=sys.stderr, flush=True)
            told = True
        time.sleep(5.0)

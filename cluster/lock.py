"""Snakemake's lock of the working directory, when the Snakemake that took it was killed.

Snakemake cannot know whether whoever took the lock still lives, and asks for `--unlock`. Here it
is known, on the same host: so that going on is the same command after anything.
"""

import os
from pathlib import Path
from socket import gethostname

from reid.files import read_json, write_json

OWNER = Path(".snakemake/owner.json")
"""Who took the lock: written as the workflow starts, and left as it ends."""


def claim() -> None:
    """Note that this process holds the lock."""
    pid = os.getpid()
    write_json(OWNER, {"host": gethostname(), "pid": pid, "started": _started(pid)})


def clear() -> bool:
    """Remove the lock of an owner that was killed on this host; whether there was one."""
    locks = list(Path(".snakemake/locks").glob("*.lock"))
    if not locks or not _abandoned():
        return False
    grave = OWNER.with_name(f"owner.{os.getpid()}.json")
    try:
        OWNER.rename(grave)  # only one of two rivals can
    except FileNotFoundError:
        return False
    for lock in locks:
        lock.unlink(missing_ok=True)
    grave.unlink()
    return True


def _abandoned() -> bool:
    if not OWNER.exists():
        return False
    owner = read_json(OWNER)
    return bool(owner["host"] == gethostname() and owner["started"] != _started(owner["pid"]))


def _started(pid: int) -> str | None:
    """When a process started, so that another one with its number is told apart; None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"

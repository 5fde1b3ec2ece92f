"""What the testbed needs of the machine, and what of Slurm is already on it."""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SLURM_CONF = Path("/etc/slurm/slurm.conf")
"""Where clients look when SLURM_CONF is not set; the Slurm executor of Snakemake unsets it."""
DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "slurmstepd")
PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sinfo", "scontrol", "sbatch", "srun")


def lacks() -> str | None:
    """Why no testbed can run on this machine, or None."""
    if os.geteuid() != 0:
        return "the testbed needs root: it runs Slurm's daemons and makes device files"
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)}: on Debian or Ubuntu, apt-get install slurm-wlm munge"
    return None


def foreign_slurm(home: Path) -> str | None:
    """What of a Slurm other than the testbed in `home` is on this machine, or None."""
    if os.path.lexists(SLURM_CONF) and not is_ours(home):
        return f"{SLURM_CONF} exists"
    conf = os.environ.get("SLURM_CONF")
    if conf and Path(conf) not in (SLURM_CONF, home / "slurm.conf"):
        return f"SLURM_CONF is set to {conf}"
    ours = set(pids(home))
    for pid, name in _processes():
        if name in DAEMONS and pid not in ours and _read(pid, "cmdline"):  # else a zombie
            return f"{name} runs (process {pid})"
    return None


def is_ours(home: Path) -> bool:
    """Whether Slurm's configuration is a link into the testbed in `home`."""
    return SLURM_CONF.is_symlink() and SLURM_CONF.readlink() == home / "slurm.conf"


def pids(home: Path) -> Iterator[int]:
    """Processes of the testbed in `home`: daemons and steps that were started with its name."""
    named = str(home).encode()
    for pid, name in sorted(_processes()):
        if name in (*DAEMONS, "munged"):
            words = _read(pid, "cmdline") + b"\0" + _read(pid, "environ")
            if named in words:
                yield pid


def stop(processes: Iterable[int], number: int = signal.SIGTERM) -> None:
    """Send a signal to processes, of which some may be gone."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _processes() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (name := _read(int(folder.name), "comm").strip()):
            yield int(folder.name), name.decode()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""

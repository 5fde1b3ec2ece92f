"""Bring the testbed up and down."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from reid.errors import UserError
from tests.slurm.testbed import conf

HOME = Path("/run/xfd-reid-testbed")
"""Everything of the testbed but the link that Slurm's clients need."""
SLURM_CONF = Path("/etc/slurm/slurm.conf")
"""Where clients look when SLURM_CONF is not set; the Slurm executor of Snakemake unsets it."""
SLURM_DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "slurmstepd")
PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sinfo", "scontrol", "sbatch", "srun")
AT_WORK = ("idle", "mixed", "allocated", "completing")
"""States of a node as sinfo prints them; a star behind one says that it does not answer."""
ENVIRONMENT = {
    "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


def impossible(home: Path = HOME) -> str | None:
    """Why no testbed can run on this machine, or None."""
    if os.geteuid() != 0:
        return "the testbed needs root: it runs Slurm's daemons and makes device files"
    missing = [name for name in PROGRAMS if shutil.which(name, path=ENVIRONMENT["PATH"]) is None]
    if missing:
        return f"no {', '.join(missing)}: on Debian or Ubuntu, apt-get install slurm-wlm munge"
    if os.path.lexists(SLURM_CONF) and not is_ours(home):
        return f"{SLURM_CONF} exists: the testbed only runs on a machine without another Slurm"
    named = os.environ.get("SLURM_CONF")
    if named and Path(named) not in (SLURM_CONF, home / "slurm.conf"):
        return f"SLURM_CONF is set to {named}: the testbed only runs without another Slurm"
    ours = daemons(home)
    for process in psutil.process_iter(["name", "cmdline"]):
        others = process.info["name"] in SLURM_DAEMONS and process not in ours
        if others and process.info["cmdline"]:  # else a zombie
            return f"another {process.info['name']} runs here (process {process.pid})"
    return None


def is_ours(home: Path = HOME) -> bool:
    """Whether Slurm's configuration is a link into the testbed in `home`."""
    return SLURM_CONF.is_symlink() and SLURM_CONF.readlink() == home / "slurm.conf"


def daemons(home: Path = HOME) -> list[psutil.Process]:
    """The daemons and job steps of the testbed: those that were started with its name."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if process.info["name"] in (*SLURM_DAEMONS, "munged") and any(
            str(home) in word for word in words
        ):
            found.append(process)
    return found


def up(home: Path = HOME) -> None:
    """Start munge, slurmctld and a slurmd per node; returns once every node is idle.

    Does nothing if it is up. Raises UserError where it cannot run.
    """
    if problem := impossible(home):
        raise UserError(problem)
    if is_up(home):
        return
    down(home)
    _lay_out(home)
    _start(
        *["munged", f"--key-file={home}/munge.key", f"--socket={home}/munge.socket"],
        *[f"--pid-file={home}/munged.pid", f"--log-file={home}/munged.log"],
        *[f"--seed-file={home}/munged.seed", "--num-threads=4", "--force"],
    )
    _start("slurmctld", "-c", "-f", f"{home}/slurm.conf")
    for node in conf.NODES:
        start_node(node, home)
    try:
        _wait(lambda: is_up(home), "nodes to become idle", seconds=60)
    except UserError:
        logs = [
            f"{log.name}: {log.read_text(errors='replace')[-800:]}" for log in home.glob("*.log")
        ]
        down(home)
        raise UserError("the testbed did not come up; its logs end:\n" + "\n".join(logs)) from None


def down(home: Path = HOME) -> None:
    """Stop the jobs and the daemons and remove every trace. Nothing happens where there is none."""
    if is_ours(home) and _answers():
        for kind in ((), ("--signal=KILL",)):
            subprocess.run(["scancel", "--user=root", *kind], capture_output=True, timeout=30)
        with suppress(UserError):
            _wait(lambda: not _ask("squeue", "-h"), "jobs to end", seconds=10)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in daemons(home):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        with suppress(UserError):
            _wait(lambda: not daemons(home), "daemons to end", seconds=10)
    if is_ours(home):
        SLURM_CONF.unlink()
    if home.exists():
        shutil.rmtree(home)


def is_up(home: Path = HOME) -> bool:
    """Whether every node of the testbed is there to work."""
    if not is_ours(home) or not _answers():
        return False
    states = dict(line.split() for line in _ask("sinfo", "-hN", "-o", "%N %T").splitlines())
    return all(states.get(node, "absent") in AT_WORK for node in conf.NODES)


def start_node(node: str, home: Path = HOME) -> None:
    """Start the slurmd of a node, for the first time or after it was killed."""
    _start("slurmd", "-N", node, "-f", f"{home}/slurm.conf")


def start_controller(home: Path = HOME) -> None:
    """Start slurmctld again; it goes on with the jobs that it had."""
    _start("slurmctld", "-f", f"{home}/slurm.conf")


def _lay_out(home: Path) -> None:
    home.mkdir(mode=0o755)
    for folder in ("state", "devices", *(f"spool.{node}" for node in conf.NODES)):
        (home / folder).mkdir()
    for path in conf.devices(home):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    key = ["mungekey", "--create", f"--keyfile={home}/munge.key"]
    subprocess.run(key, check=True, env=ENVIRONMENT)
    controller_port, *ports = _free_ports(1 + len(conf.NODES))
    text = conf.slurm_conf(
        home,
        host=socket.gethostname().split(".")[0],
        controller_port=controller_port,
        ports=dict(zip(conf.NODES, ports, strict=True)),
    )
    (home / "slurm.conf").write_text(text)
    (home / "gres.conf").write_text(conf.gres_conf(home))
    SLURM_CONF.parent.mkdir(exist_ok=True)
    SLURM_CONF.symlink_to(home / "slurm.conf")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _start(*command: str) -> None:
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    if done.returncode:
        raise UserError(f"{command[0]} did not start: {done.stderr.strip()}")


def _answers() -> bool:
    return subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode == 0


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


def _wait(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise UserError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)

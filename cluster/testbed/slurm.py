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

from cluster.testbed import conf, machine
from reid.errors import UserError

HOME = Path("/run/xfd-reid-testbed")
"""Everything of the testbed but the link that Slurm's clients need at /etc/slurm/slurm.conf."""
AT_WORK = ("idle", "mixed", "allocated", "completing")
"""States of a node as sinfo prints them; a star behind one says that it does not answer."""


def up(home: Path = HOME) -> None:
    """Start munge, slurmctld and a slurmd per node; returns once every node is idle.

    Does nothing if it is up. Raises UserError where it cannot run or where another Slurm is.
    """
    if problem := machine.lacks():
        raise UserError(problem)
    if other := machine.foreign_slurm(home):
        raise UserError(f"{other}: the testbed only runs on a machine without another Slurm")
    if is_up(home):
        return
    down(home)
    _lay_out(home)
    _daemon(
        *["munged", f"--key-file={home}/munge.key", f"--socket={home}/munge.socket"],
        *[f"--pid-file={home}/munged.pid", f"--log-file={home}/munged.log"],
        *[f"--seed-file={home}/munged.seed", "--num-threads=4", "--force"],
    )
    _daemon("slurmctld", "-c", "-f", f"{home}/slurm.conf")
    for node in conf.NODES:
        start_node(node, home)
    try:
        _wait(lambda: is_up(home), "nodes to become idle", seconds=60)
    except UserError:
        logs = "\n".join(_tail(log) for log in sorted(home.glob("*.log")))
        down(home)
        raise UserError(f"the testbed did not come up; its logs end:\n{logs}") from None


def down(home: Path = HOME) -> None:
    """Stop the jobs and the daemons and remove every trace. Nothing happens where there is none."""
    if machine.is_ours(home) and _answers():
        subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=30)
        subprocess.run(["scancel", "--user=root", "--signal=KILL"], capture_output=True, timeout=30)
        with suppress(UserError):
            _wait(lambda: not _ask("squeue", "-h"), "jobs to end", seconds=10)
    machine.stop(machine.pids(home))
    try:
        _wait(lambda: not list(machine.pids(home)), "daemons to end", seconds=10)
    except UserError:
        machine.stop(machine.pids(home), signal.SIGKILL)
        _wait(lambda: not list(machine.pids(home)), "daemons to end", seconds=10)
    if machine.is_ours(home):
        machine.SLURM_CONF.unlink()
    if home.exists():
        shutil.rmtree(home)


def is_up(home: Path = HOME) -> bool:
    """Whether every node of the testbed is there to work."""
    if not machine.is_ours(home) or not _answers():
        return False
    states = dict(line.split() for line in _ask("sinfo", "-hN", "-o", "%N %T").splitlines())
    return all(states.get(node, "absent") in AT_WORK for node in conf.NODES)


def start_node(node: str, home: Path = HOME) -> None:
    """Start the slurmd of a node, for the first time or after it was killed."""
    _daemon("slurmd", "-N", node, "-f", f"{home}/slurm.conf")


def start_controller(home: Path = HOME) -> None:
    """Start slurmctld again; it goes on with the jobs that it had."""
    _daemon("slurmctld", "-f", f"{home}/slurm.conf")


def _lay_out(home: Path) -> None:
    home.mkdir(mode=0o755)
    for folder in ("state", "devices", *(f"spool.{node}" for node in conf.NODES)):
        (home / folder).mkdir()
    for paths in conf.devices(home).values():
        for path in paths:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    subprocess.run(
        ["mungekey", "--create", f"--keyfile={home}/munge.key"], check=True, env=_environment()
    )
    ports = _free_ports(1 + len(conf.NODES))
    (home / "slurm.conf").write_text(
        conf.slurm_conf(
            home,
            host=socket.gethostname().split(".")[0],
            controller_port=ports[0],
            ports=dict(zip(conf.NODES, ports[1:], strict=True)),
        )
    )
    (home / "gres.conf").write_text(conf.gres_conf(home))
    machine.SLURM_CONF.parent.mkdir(exist_ok=True)
    machine.SLURM_CONF.symlink_to(home / "slurm.conf")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _daemon(*command: str) -> None:
    done = subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    if done.returncode:
        raise UserError(f"{command[0]} did not start: {done.stderr.strip()}")


def _environment() -> dict[str, str]:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": "/root"}


def _answers() -> bool:
    return subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode == 0


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def _wait(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise UserError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def _tail(log: Path) -> str:
    return f"{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])

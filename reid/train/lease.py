"""One trainer per run folder: a lease file with a heartbeat.

Slurm may start a job again while its first start still runs, and a restarted Snakemake submits
jobs that it has forgotten. The second trainer must leave the run folder alone.
"""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from reid.errors import LeaseHeld
from reid.files import demand_regular
from reid.train.interrupt import Interrupt

BEAT_SECONDS = 10.0
"""Time between heartbeats, which are the modification times of the lease file."""
SILENT_SECONDS = 60.0
"""A trainer that could not beat for so long stops."""
STALE_SECONDS = 90.0
"""A lease without a heartbeat for so long may be taken over by a trainer of another host."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease."""

    host: str
    namespace: str
    """Of process ids: a container on the same host may have its own."""
    pid: int
    started: int | None
    """Start time of the process, in clock ticks since boot; None where there is no /proc."""
    job: str | None
    """Slurm job id."""
    silence: float = field(default=0.0, compare=False)
    """Seconds since the last heartbeat."""

    def __str__(self) -> str:
        if self == DAMAGED:
            return "an unknown process (its lease file is damaged)"
        return f"process {self.pid} on {self.host} (job {self.job or 'none'})"


_OWNER = TypeAdapter(Owner)
DAMAGED = Owner(host="", namespace="", pid=0, started=None, job=None)
"""Stands for the owner of a lease file that cannot be parsed: only its heartbeat tells."""


@contextmanager
def held(
    folder: Path, *, job: str | None, interrupt: Interrupt, patience: float = 0.0
) -> Iterator[None]:
    """Hold the lease of a run folder, whose heartbeat a thread renews.

    The lease of a dead process is taken over: on the same host the process table decides, for
    other hosts a heartbeat older than STALE_SECONDS. For a living owner it waits `patience`
    seconds. `interrupt` is asked to stop when another process takes the lease, or when the
    heartbeat could not be written for SILENT_SECONDS.

    Raises:
        LeaseHeld: naming the owner, when it still holds the lease after `patience` seconds.
        Stopped: when a stop is due while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, pid = folder / "lease.json", os.getpid()
    process = Owner(socket.gethostname(), _pid_namespace(), pid, _start_time(pid), job)
    _acquire(path, process, interrupt, patience)
    heartbeat = _Heartbeat(path, process, interrupt)
    heartbeat.start()
    interrupt.check_lease = heartbeat.check
    try:
        yield
    finally:
        interrupt.check_lease = lambda: None
        heartbeat.end()


def owner_of(folder: Path) -> Owner | None:
    """The living process that holds the lease of a run folder, by this host's clock; read-only."""
    try:
        owner = _read(folder / "lease.json", time.time())
    except FileNotFoundError:
        return None
    return None if _is_dead(owner) else owner


def _acquire(path: Path, process: Owner, interrupt: Interrupt, patience: float) -> None:
    deadline, waiting = time.monotonic() + patience, False
    while not _create(path, process):
        interrupt.check(f"waiting for {path.parent}")
        try:
            owner = _read(path, _file_system_time(path.parent))
        except FileNotFoundError:
            continue  # released just now
        if _is_dead(owner):
            _remove_stale(path)
            continue
        in_use = f"{path.parent} is in use by {owner}, last heartbeat {owner.silence:.0f} s ago"
        if time.monotonic() >= deadline:
            raise LeaseHeld(f"{in_use}: wait for it, or stop it and run this again")
        if not waiting:
            print(f"{in_use}: waiting for it", flush=True)
            waiting = True
        time.sleep(1.0)


class _Heartbeat(threading.Thread):
    """Renews a lease, and asks for a stop when it cannot."""

    def __init__(self, path: Path, process: Owner, interrupt: Interrupt) -> None:
        super().__init__(daemon=True)
        self._path, self._process, self._interrupt = path, process, interrupt
        self._last_beat, self._done = time.monotonic(), threading.Event()

    def run(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            self._beat()

    def check(self) -> None:
        """Beat now if the thread could not: it hangs, or this process was suspended."""
        if time.monotonic() - self._last_beat > SILENT_SECONDS:
            self._beat()

    def end(self) -> None:
        """Stop, and remove the lease if it is still ours."""
        self._done.set()
        self.join()
        try:
            if self._is_ours():
                self._path.unlink()
        except OSError as error:
            print(f"warning: {self._path} could not be removed ({error.strerror})", flush=True)

    def _is_ours(self) -> bool:
        return _read(self._path, 0.0) in (self._process, DAMAGED)

    def _beat(self) -> None:
        try:
            if self._is_ours():
                os.utime(self._path)
                self._last_beat = time.monotonic()
            else:
                self._interrupt.abandon(f"{self._path} was taken by another process")
        except FileNotFoundError:
            self._interrupt.abandon(f"{self._path} was removed")
        except OSError as error:
            silence = time.monotonic() - self._last_beat
            reason = f"{self._path} could not be renewed for {silence:.0f} s ({error.strerror})"
            if silence > STALE_SECONDS:
                self._interrupt.abandon(reason)
            elif silence > SILENT_SECONDS:
                self._interrupt.request(reason)


def _pid_namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if link.is_symlink() else ""


def _start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of a process; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *numbers = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(numbers[18])


def _is_dead(owner: Owner) -> bool:
    here = owner.host == socket.gethostname() and owner.namespace == _pid_namespace()
    if here and owner.started is not None:
        return _start_time(owner.pid) != owner.started
    return owner.silence > STALE_SECONDS


def _create(path: Path, owner: Owner | None = None) -> bool:
    """Write the lease file unless there is one. A rival may read it before it is complete."""
    try:
        with path.open("xb") as file:
            file.write(_OWNER.dump_json(owner) if owner else b"")
    except FileExistsError:
        return False
    return True


def _read(path: Path, now: float) -> Owner:
    """The owner that a lease file names, DAMAGED if it names none. Raises OSError."""
    demand_regular(path)
    with path.open("rb") as file:
        content, last_beat = file.read(4096), os.fstat(file.fileno()).st_mtime
    try:
        owner = _OWNER.validate_json(content, strict=True)
    except ValidationError:
        owner = DAMAGED
    return replace(owner, silence=max(0.0, now - last_beat))


def _remove_stale(path: Path) -> None:
    """Remove the lease of a dead process: one rival at a time, or it could be a rival's new one."""
    guard = path.with_name("lease.takeover")
    if not _create(guard):
        with suppress(FileNotFoundError):
            if _file_system_time(path.parent) - guard.stat().st_mtime > STALE_SECONDS:
                guard.unlink()  # of a rival that was killed meanwhile
        time.sleep(0.1)
        return
    try:
        with suppress(FileNotFoundError):
            if _is_dead(_read(path, guard.stat().st_mtime)):
                path.unlink()
    finally:
        guard.unlink(missing_ok=True)


def _file_system_time(folder: Path) -> float:
    """The time by the clock that dates the files in `folder`: hosts may disagree about it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lease.", suffix=".tmp") as probe:
        return os.fstat(probe.fileno()).st_mtime

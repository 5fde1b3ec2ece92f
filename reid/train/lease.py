"""One writer per run folder: a lease file with a heartbeat.

Slurm may start a job again while its first copy still runs, and a restarted controller submits
jobs it has forgotten. Whoever comes second must not touch the run.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import LeaseHeld
from reid.files import write_json

BEAT_SECONDS = 10.0
"""Time between heartbeats."""
SILENT_SECONDS = 3 * BEAT_SECONDS
"""After this long without one, an earlier start of the same job is over."""
DEAD_SECONDS = 90.0
"""A lease whose last heartbeat is older has no living holder."""


@contextmanager
def held(
    folder: Path,
    *,
    job: str | None,
    lost: Callable[[str], None],
    beat: float = BEAT_SECONDS,
    patience: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the lease of a run folder; `job` names the scheduler's job, if there is one.

    A dead holder's lease is taken over: its process is gone from this host, its heartbeat is
    older than DEAD_SECONDS, or, if it was an earlier start of the same job on another host, than
    three beats, which are waited for: that host may only have lost touch with the scheduler, and
    its trainer stops when it notices. A living one is waited for
    `patience` seconds, while `check` may raise; then raises LeaseHeld naming the holder. `lost`
    is called, with a reason, if somebody else takes this lease.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lease.json"
    token = uuid.uuid4().hex
    mine = {"token": token, "job": job, "host": socket.gethostname(), "pid": os.getpid()}
    _acquire(path, mine, patience, check)
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, token, stop, lost, beat), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if _token(path) == token:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Holder:
    """Who is at work in a run folder."""

    job: str | None
    host: str
    pid: int
    silence: float
    """Seconds since the last sign of life."""


def holder(folder: Path) -> Holder | None:
    """Who holds the lease of a run folder and is alive, as far as this host's clock can tell.

    Only reads, so that anybody may ask.
    """
    path = folder / "lease.json"
    content = _read(path)
    if not content:
        return None
    try:
        silence = max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None
    if _dead(content, silence, job=None):
        return None
    return Holder(content.get("job"), str(content.get("host")), int(content["pid"]), silence)


def _acquire(path: Path, mine: dict[str, Any], patience: float, check: Callable[[], None]) -> None:
    end = time.monotonic() + patience
    told = False
    while not _create(path, mine):
        holder = _read(path)
        if holder is None:
            continue  # released just now
        age = _age(path)
        if not _dead(holder, age, mine["job"]):
            in_use = (
                f"{path.parent} is in use by process {holder.get('pid')} on {holder.get('host')}"
                f" (job {holder.get('job') or 'none'}, last sign of life {age:.0f} s ago)"
            )
            if time.monotonic() >= end and not _restarted(holder, mine["job"]):
                raise LeaseHeld(f"{in_use}: wait for it, or stop it and run this again")
            if not told:
                print(f"{in_use}: waiting for it", flush=True)
                told = True
            check()
            time.sleep(1.0)
            continue
        # Only one of several rivals can move this very file away: its new name is the holder's.
        grave = path.with_name(f"lease.{holder.get('token')}.dead")
        try:
            path.rename(grave)
        except FileNotFoundError:
            continue
        moved = _read(grave)
        if moved is not None and moved.get("token") != holder.get("token"):
            # A rival was quicker and this is its fresh lease: give it back untouched. If a third
            # has come in between, the rival's next heartbeat sees it and the rival stops.
            with suppress(FileExistsError):
                os.link(grave, path)
        grave.unlink(missing_ok=True)


def _create(path: Path, mine: dict[str, Any]) -> bool:
    """Write the whole lease beside its place, then link it there: never seen half-written."""
    own = path.with_name(f"lease.{mine['token']}")
    write_json(own, mine)
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink(missing_ok=True)
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """Who holds the lease: None if nobody does, an empty mapping if the file is unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _token(path: Path) -> str | None:
    holder = _read(path)
    return None if holder is None else holder.get("token")


def _age(path: Path) -> float:
    """Seconds since the last heartbeat by the file system's own clock: hosts may disagree."""
    probe = path.with_name(f"lease.{uuid.uuid4().hex}.now")
    probe.touch()
    try:
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _dead(holder: dict[str, Any], age: float, job: str | None) -> bool:
    if age > DEAD_SECONDS:
        return True
    if _restarted(holder, job):
        return age > SILENT_SECONDS
    if _elsewhere(holder):
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError):
        return False
    return False


def _restarted(holder: dict[str, Any], job: str | None) -> bool:
    """Whether this is a later start, elsewhere, of the holder's job: it will not come back."""
    return job is not None and holder.get("job") == job and _elsewhere(holder)


def _elsewhere(holder: dict[str, Any]) -> bool:
    return bool(holder.get("host") != socket.gethostname())


def _beat(
    path: Path, token: str, stop: threading.Event, lost: Callable[[str], None], beat: float
) -> None:
    while not stop.wait(beat):
        holder = _token(path)
        if holder != token:
            lost(f"{path} was taken by another process")
            return
        path.touch()

"""FAULTS 11 and 18: one trainer per run folder, whatever happens to its lease."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.errors import LeaseHeld
from reid.train import lease
from reid.train.interrupt import Interrupt
from tests.runs import STAGE2, Lab, remains, slow_steps, wait, wait_for
from tests.train.conftest import checkpoints_of

ELSEWHERE = {"host": "elsewhere", "namespace": "", "pid": 1, "started": 5, "job": "7"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)


def leave(folder: Path, silence: float = 0.0, **fields: Any) -> Path:
    """A lease file as another process would have left it."""
    path = folder / "lease.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**ELSEWHERE, **fields}))
    os.utime(path, (time.time() - silence,) * 2)
    return path


def take(folder: Path, patience: float = 0.0) -> None:
    with lease.held(folder, job=None, interrupt=Interrupt(), patience=patience):
        assert json.loads((folder / "lease.json").read_text())["pid"] == os.getpid()
        owner = lease.owner_of(folder)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert not list(folder.iterdir())


def here(pid: int) -> dict[str, Any]:
    """Fields of a lease of a process of this host."""
    return {
        "host": socket.gethostname(),
        "namespace": lease._pid_namespace(),
        "pid": pid,
        "started": lease._start_time(pid),
    }


@pytest.mark.parametrize(
    ("change", "silence", "killed", "alive"),
    [
        ({}, 600, False, True),  # suspended
        ({}, 0, True, False),  # killed, but its parent has not waited for it
        ({"started": 5}, 0, False, False),  # its number was given to another process
        ({"namespace": "pid:[1]", "started": 5}, 0, False, True),  # in another container
        ({"namespace": "pid:[1]"}, 600, False, False),
    ],
)
def test_on_the_same_host_the_process_table_decides(
    tmp_path: Path, change: dict[str, Any], silence: float, killed: bool, alive: bool
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        leave(tmp_path, silence, **{**here(process.pid), **change})
        if killed:
            process.kill()
            wait_for(lambda: lease._start_time(process.pid) is None)
        owner = lease.owner_of(tmp_path)
        assert (owner.pid if owner else None) == (process.pid if alive else None)
        if alive:
            message = f"in use by process {process.pid} on .* {silence} s ago"
            with pytest.raises(LeaseHeld, match=message):
                take(tmp_path)
        else:
            take(tmp_path)
        process.kill()


@pytest.mark.parametrize(("silence", "dead"), [(80, False), (100, True)])
def test_on_another_host_the_heartbeat_decides(tmp_path: Path, silence: float, dead: bool) -> None:
    leave(tmp_path, silence)
    assert (lease.owner_of(tmp_path) is None) == dead
    if dead:
        take(tmp_path)
    else:
        with pytest.raises(LeaseHeld, match=r"in use by process 1 on elsewhere \(job 7\)"):
            take(tmp_path)
        assert json.loads((tmp_path / "lease.json").read_text()) == ELSEWHERE


TYPES = json.dumps({**ELSEWHERE, "pid": "one"}).encode()


@given(st.binary(max_size=50) | st.sampled_from([b"null", b"[]", b"{}", b"[" * 4000, TYPES]))
def test_a_damaged_lease_counts_until_it_is_silent(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("lease")
    path = folder / "lease.json"
    path.write_bytes(content)
    with pytest.raises(LeaseHeld, match="an unknown process"):
        take(folder)
    assert path.read_bytes() == content
    os.utime(path, (time.time() - 100,) * 2)
    assert lease.owner_of(folder) is None
    take(folder)


def test_many_rivals_for_a_stale_lease_and_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, results, is_dead = threading.Lock(), [], lease._is_dead

    def slow(owner: lease.Owner) -> bool:
        dead = is_dead(owner)
        time.sleep(0.01)  # time for rivals between a look and what follows from it
        return dead

    monkeypatch.setattr(lease, "_is_dead", slow)

    def rival() -> None:
        try:
            with lease.held(tmp_path, job=None, interrupt=Interrupt()):
                alone = working.acquire(blocking=False)
                results.append("alone" if alone else "with another")
                time.sleep(0.05)
                if alone:
                    working.release()
        except LeaseHeld:
            results.append("refused")

    for _ in range(10):
        leave(tmp_path, silence=600)
        threads = [threading.Thread(target=rival) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 80
    assert set(results) == {"alone", "refused"}


@pytest.mark.parametrize(
    ("owner", "function", "number"),
    [
        (lease, "_read", errno.ESTALE),
        (lease, "_read", errno.EMFILE),
        (lease.os, "utime", errno.EIO),
    ],
)
def test_the_heartbeat_survives_errors_and_stops_before_the_lease_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, function: str, number: int
) -> None:
    def error(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    interrupt, path = Interrupt(), tmp_path / "lease.json"
    with lease.held(tmp_path, job=None, interrupt=interrupt):
        with monkeypatch.context() as broken:
            broken.setattr(owner, function, error)
            time.sleep(0.1)
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
        assert interrupt.due() is None
        monkeypatch.setattr(lease, "SILENT_SECONDS", 0.2)
        monkeypatch.setattr(lease, "STALE_SECONDS", 1.2)
        monkeypatch.setattr(owner, function, error)
        wait_for(lambda: interrupt.due() is not None)
        assert interrupt.may_save, "the lease is not stale yet"
        assert "could not be renewed for" in str(interrupt.due())
        assert os.strerror(number) in str(interrupt.due())
        wait_for(lambda: not interrupt.may_save)
        monkeypatch.undo()


def test_a_trainer_whose_heartbeat_hangs_notices_it_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was suspended: no thread has run since, but the training loop asks."""
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(lease._Heartbeat, "run", lambda _: None)
    interrupt = Interrupt()
    with lease.held(tmp_path, job=None, interrupt=interrupt):
        time.sleep(0.1)
        assert interrupt.due() is None, "the lease is still there and was renewed"
        leave(tmp_path)
        time.sleep(0.1)
        assert "was taken by another process" in str(interrupt.due())
        assert not interrupt.may_save
    assert json.loads((tmp_path / "lease.json").read_text()) == ELSEWHERE


def test_a_damaged_lease_is_still_renewed_by_its_owner(tmp_path: Path) -> None:
    interrupt, path = Interrupt(), tmp_path / "lease.json"
    with lease.held(tmp_path, job=None, interrupt=interrupt):
        path.write_bytes(b"\0" * 80)
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
        assert interrupt.due() is None
    assert not path.exists()


def test_fault_11_fault_18_a_second_trainer_exits_76_or_waits(
    lab: Lab, expected: dict[str, Any]
) -> None:
    first = lab.start(*STAGE2, before=slow_steps, environment={"SLURM_JOB_ID": "7"})
    wait_for((lab.work() / "lease.json").exists)
    assert lab.finish(*STAGE2, environment={"SLURM_JOB_ID": "8"}) == 76
    assert f"in use by process {first} on {socket.gethostname()} (job 7)" in lab.log()
    third = lab.start(*STAGE2, "--wait", "5")
    wait_for(lambda: "waiting for it" in lab.log())
    assert wait(first) == 0
    assert wait(third) == 0, lab.log()
    assert not (lab.work() / "lease.json").exists()
    assert remains(lab) == expected


def test_fault_18_a_waiting_trainer_can_be_stopped(lab: Lab) -> None:
    path = leave(lab.work())
    waiting = lab.start(*STAGE2, "--wait", "5")
    wait_for(lambda: "waiting for it" in lab.log())
    os.killpg(waiting, signal.SIGTERM)
    assert wait(waiting) == 75
    assert json.loads(path.read_text()) == ELSEWHERE


def test_fault_11_a_trainer_without_its_lease_leaves_the_folder_alone(
    lab: Lab, expected: dict[str, Any]
) -> None:
    """Suspended for so long that another took over, it wakes up: no checkpoint, no more steps."""

    def suspended() -> None:
        lease.BEAT_SECONDS = 0.02
        slow_steps()

    first = lab.start(*STAGE2, before=suspended)
    wait_for((lab.work() / "lease.json").exists)
    leave(lab.work())
    assert wait(first) == 75
    assert "lease.json was taken by another process" in lab.log()
    assert json.loads((lab.work() / "lease.json").read_text()) == ELSEWHERE
    assert not list(checkpoints_of(lab).glob("*"))
    (lab.work() / "lease.json").unlink()
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert remains(lab) == expected

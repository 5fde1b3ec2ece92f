"""FAULT 18: the lock of a Snakemake that was killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import lock


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / ".snakemake" / "locks" / "0.input.lock"
    found.parent.mkdir(parents=True)
    found.touch()
    return found


def claimed_by(code: str) -> None:
    """Another process claims the lock and ends."""
    subprocess.run([sys.executable, "-c", f"from cluster import lock; {code}"], check=True)


def test_the_lock_of_the_dead_is_removed(locked: Path) -> None:
    claimed_by("lock.claim(); import os; os.kill(os.getpid(), 0)")
    assert lock.clear()
    assert not locked.exists()
    assert not lock.clear()


def test_the_lock_of_the_living_stays(locked: Path) -> None:
    lock.claim()
    claimed_by("assert not lock.clear()")
    assert locked.exists()


def test_another_process_with_the_same_number_is_not_the_owner(locked: Path) -> None:
    lock.claim()
    owner = json.loads(lock.OWNER.read_text())
    assert owner["pid"] == os.getpid()
    lock.OWNER.write_text(json.dumps({**owner, "started": "another boot 1"}))
    assert lock.clear()
    assert not locked.exists()


def test_the_lock_of_another_host_stays(locked: Path) -> None:
    lock.claim()
    owner = json.loads(lock.OWNER.read_text())
    lock.OWNER.write_text(json.dumps({**owner, "host": "elsewhere", "started": "0"}))
    assert not lock.clear()
    assert locked.exists()


def test_a_lock_of_nobody_known_stays(locked: Path) -> None:
    assert not lock.clear()
    assert locked.exists()

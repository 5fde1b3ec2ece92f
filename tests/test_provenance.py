"""A manifest names what made its files."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reid import provenance
from reid.files import sha256_of_file


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_manifest_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "stage2.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    provenance.write(
        tmp_path / "manifest.json",
        stage="stage2",
        seed=3,
        fingerprint="abc",
        options={"stage2": {"lr": 0.1}},
        device="cpu",
        precision="bf16",
        started=datetime.now(UTC) - timedelta(seconds=90),
        inputs={},
        outputs={"stage2": weights},
    )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["fingerprint"] == "abc"
    assert manifest["options"] == {"stage2": {"lr": 0.1}}
    assert 90 <= manifest["wall_seconds"] < 100
    assert manifest["precision"] == "bf16"
    assert manifest["slurm"] == {"job_id": "17"}
    assert manifest["gpu"] is None
    assert set(manifest["packages"]) == set(provenance.PACKAGES)
    recorded = {"path": weights.as_posix(), "sha256": sha256_of_file(weights)}
    assert manifest["outputs"] == {"stage2": recorded}


def test_outside_of_slurm_there_is_no_job() -> None:
    assert provenance.slurm_job({"PATH": "/bin"}) is None
    found = provenance.slurm_job({"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "2"})
    assert found == {"job_id": "5", "restart_count": "2"}


def test_git_state_of_a_checkout(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None
    git(tmp_path, "init")
    assert provenance.git_state(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = {"sha": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert provenance.git_state(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert provenance.git_state(tmp_path) == {**clean, "dirty": True}


def test_a_package_installed_inside_somebodys_checkout_is_not_that_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "site-packages").mkdir()
    assert provenance.git_state(tmp_path / "site-packages") is None

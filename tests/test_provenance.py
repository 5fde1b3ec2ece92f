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
    facts = {"stage": "stage2", "seed": 3, "fingerprint": "abc", "precision": "bf16", "gpu": None}
    facts |= {"options": {"stage2": {"lr": 0.1}}, "slurm": {"job_id": "17"}}
    assert facts.items() <= manifest.items()
    assert 90 <= manifest["wall_seconds"] < 100
    assert set(manifest["packages"]) == set(provenance.PACKAGES)
    recorded = {"path": weights.as_posix(), "sha256": sha256_of_file(weights)}
    assert manifest["outputs"] == {"stage2": recorded}


def test_only_variables_of_slurm_are_recorded() -> None:
    assert provenance.slurm_job({"PATH": "/bin"}) is None
    variables = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "2"}
    assert provenance.slurm_job(variables) == {"job_id": "5", "restart_count": "2"}


def test_git_state_of_a_checkout_but_not_of_a_folder_inside_one(tmp_path: Path) -> None:
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
    (tmp_path / "site-packages").mkdir()
    assert provenance.git_state(tmp_path / "site-packages") is None

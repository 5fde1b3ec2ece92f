"""A manifest names what made its files."""

import subprocess
import sys
from pathlib import Path

import pytest

from reid import provenance
from reid.files import sha256_of_file


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_manifest_is_complete_and_knows_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, path = tmp_path / "stage2.safetensors", tmp_path / "stage2.manifest.json"
    weights.write_bytes(b"weights")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    stamp = {"step": "stage2", "options": {"lr": 0.1}, "code": {}, "inputs": {}}
    made = {**provenance.facts("cpu", "bf16"), "started": "2026-01-01T00:00:00+00:00", "inputs": {}}
    provenance.write(path, stamp=stamp, outputs=[weights], made=made)
    manifest = provenance.read(path)
    assert manifest is not None
    assert manifest.stamp == stamp
    facts = {"precision": "bf16", "gpu": None, "slurm": {"job_id": "17"}, "command": sys.argv}
    assert facts.items() <= manifest.made.items()
    assert manifest.made["wall_seconds"] > 0
    assert manifest.made["threads"] >= 1
    assert set(manifest.made["packages"]) == set(provenance.PACKAGES)
    assert manifest.outputs[weights.name]["sha256"] == sha256_of_file(weights)


def test_made_is_of_what_made_these_bytes_first(tmp_path: Path) -> None:
    output, path = tmp_path / "a.json", tmp_path / "a.manifest.json"
    made = {**provenance.facts(), "inputs": {}}
    for content, step, host, expected in (
        ("1", "x", "first", "first"),
        ("1", "x", "second", "first"),
        ("1", "y", "third", "third"),
        ("2", "y", "fourth", "fourth"),
    ):
        output.write_text(content)
        stamp = {"step": step, "options": {}, "code": {}, "inputs": {}}
        provenance.write(path, stamp=stamp, outputs=[output], made={**made, "host": host})
        manifest = provenance.read(path)
        assert manifest is not None
        assert (manifest.stamp, manifest.made["host"]) == (stamp, expected)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"stamp": 1, "outputs": {}, "made": {}}',
             '{"stamp": {}, "outputs": {"a": {}}, "made": {}}', "\0" * 99]
)  # fmt: skip
def test_a_damaged_manifest_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.manifest.json").write_text(text)
    assert provenance.read(tmp_path / "a.manifest.json") is None


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
    clean = {"sha": git(tmp_path, "rev-parse", "HEAD"), "dirty": []}
    assert provenance.git_state(tmp_path) == clean
    (tmp_path / "a").write_bytes(b"caf\xe9")
    state = provenance.git_state(tmp_path)
    assert state is not None
    assert (state["sha"], state["dirty"]) == (clean["sha"], ["a"])
    assert "-1\n" in state["diff"]
    assert "+caf\ufffd" in state["diff"]
    (tmp_path / "site-packages").mkdir()
    assert provenance.git_state(tmp_path / "site-packages") is None

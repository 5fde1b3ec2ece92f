"""FAULT 18 without a Slurm: which jobs of earlier controllers a new one waits for."""

from pathlib import Path

import pytest

from cluster import live

HERE = Path("/home/me/project")
LISTED = f"""\
11|{HERE}|rule_stage2_wildcards_demo_baseline_1
12|{HERE}|rule_stage2_wildcards_demo_scaled_1
13|/home/me/other|rule_stage2_wildcards_demo_scaled_1
14|{HERE}|rule_stage1_wildcards_demo_scaled_1
15|{HERE}|(null)
16|{HERE}|rule_stage2_wildcards_demo_scaled_1
"""


def test_only_jobs_for_the_same_outputs_in_the_same_folder() -> None:
    assert live.alive(LISTED, "stage2", ["demo", "scaled", "1"], HERE) == ["12", "16"]
    assert live.alive(LISTED, "stage2", ["demo", "scaled", "2"], HERE) == []


def squeue(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "squeue"
    script.write_text(f"#!/bin/sh\n{text}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.chdir(folder)


def test_a_new_job_waits_for_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"{tmp_path}|rule_extract_wildcards_demo_a_1"
    squeue(tmp_path, f"echo '3|{line}'; echo '5|{line}'", monkeypatch)
    assert live.dependency("extract", ["demo", "a", "1"]) == "--dependency=afterany:3:5"
    assert live.dependency("extract", ["demo", "b", "1"]) == ""


def test_fault_17_who_is_alive_is_asked_until_slurm_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, "[ -e asked ] || { touch asked; exit 1; }", monkeypatch)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert live.dependency("extract", ["demo", "a", "1"]) == ""
    assert (tmp_path / "asked").exists()

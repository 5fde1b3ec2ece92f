"""`reid status`: what is done, at work, stopped and broken, and what to type."""

import os
import signal
from pathlib import Path

import pytest

from reid import config, status
from reid.chain import Chain
from reid.files import RECORD, read_json_lines
from reid.paths import Results
from tests.manifests import describe
from tests.runs import STAGE1, STAGE2, Lab, make_lab, slow_steps, wait, wait_for


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = make_lab(tmp_path)
    monkeypatch.chdir(made.folder)
    return made


def settings() -> config.Config:
    return config.load([Path("config.yaml")])


def states(step: str) -> list[tuple[str, str]]:
    jobs = [each for each in status.statuses(Chain(settings())) if each.job.step == step]
    return [(each.state, each.detail) for each in jobs]


def text(command: str = "snakemake") -> str:
    return "\n".join(status.report(status.statuses(Chain(settings())), command))


def begin(lab: Lab) -> int:
    """A stage 2 that is at work: returns its process id."""
    pid = lab.start(*STAGE2, before=slow_steps)
    attempts = lab.work() / "attempts.jsonl"
    wait_for(lambda: [{}, *read_json_lines(attempts, RECORD)][-1].get("event") == "start", 60)
    return pid


def test_from_nothing_to_done(lab: Lab) -> None:
    assert states("index") == [("done", "")]
    assert states("stage2") == [("waiting", "")]
    assert states("extract") == [("waiting", "")] * 3
    assert "To resume (finished jobs are kept): snakemake" in text()
    for job in Chain(settings()).jobs:
        for path in job.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert "of an earlier version, or made by hand" in text()
    describe(settings())
    assert "To resume" not in text()
    assert text().count(" jobs: ") == 7  # no variant is tuned: no such step


def test_the_embedded_benchmark_has_two_more_steps() -> None:
    shipped = config.load([Path("config/config.yaml"), Path("config/demo.yaml")])
    names = [job.name for job in Chain(shipped).jobs]
    assert names[:3] == ["demo_data", "demo_weights tiny-b16", "demo_weights tiny-l14"]
    assert len(names) == 62


def test_a_step_without_a_result_shows_what_it_said_last(lab: Lab) -> None:
    log = Results(Path("results/tiny")).log("retrieval", "row", "seed1", "A2A")
    log.parent.mkdir(parents=True)
    log.write_text("ranking\nerror: features.safetensors is damaged\n\n")
    assert ("unfinished", "error: features.safetensors is damaged") in states("retrieve")
    assert str(log) in text()


def test_a_training_at_work_stopped_killed_and_done(lab: Lab) -> None:
    assert lab.finish(*STAGE1) == 0, lab.log()
    assert states("stage1") == [("done", "")]
    pid = begin(lab)
    [(state, detail)] = states("stage2")
    assert (state, f"process {pid} on " in detail) == ("running", True), detail
    os.kill(pid, signal.SIGTERM)
    assert wait(pid) == 75, lab.log()
    [(state, detail)] = states("stage2")
    assert (state, detail.startswith("attempt 1, epoch 1, step ")) == ("stopped", True), detail
    assert "log:" not in text(), "a training started by hand has none"
    pid = begin(lab)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    [(state, detail)] = states("stage2")
    assert (state, "attempt 2" in detail, "killed" in detail) == ("failed", True, True), detail
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert states("stage2") == [("done", "")]


@pytest.mark.parametrize("damage", ["null\n", "[1]\n", "{}\n", "\0" * 200, '{"stage": 3}\n'])
def test_damaged_records_of_a_training_end_nothing(lab: Lab, damage: str) -> None:
    for name in ("attempts.jsonl", "stage2.jsonl", "lease.json"):
        lab.work().mkdir(parents=True, exist_ok=True)
        (lab.work() / name).write_text(damage)
    assert states("stage2") == [("waiting", "")]
    with (lab.work() / "attempts.jsonl").open("a") as attempts:
        attempts.write('\n{"event": "start", "time": "2026-01-01T00:00:00+00:00"}\n')
    [(state, detail)] = states("stage2")
    assert (state, detail[:9]) in {("failed", "attempt 1"), ("running", "attempt 1")}


def test_the_command_line_prints_no_colors_into_a_file_and_names_all_configurations(
    lab: Lab,
) -> None:
    assert lab.finish("status") == 0
    assert "index" in lab.log()
    assert "snakemake --configfile config.yaml" in lab.log()
    assert "\033[" not in lab.log()
    colored = "\n".join(status.report(status.statuses(Chain(settings())), "", colors=True))
    assert "\033[32m" in colored
    shipped = [status.STANDARD, Path("my.yaml")]
    assert status.resume_command(shipped[:1]) == "snakemake"
    assert status.resume_command(shipped) == "snakemake --configfile my.yaml"

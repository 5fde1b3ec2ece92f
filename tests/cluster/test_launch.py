"""Controller and single stages on submitit's executors that need no Slurm: real signals."""

import json
import signal
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit

from cluster import requests
from cluster.launch import main
from cluster.query import Job
from cluster.work import LOCKS, Controller, Stage, Work, outside, waiting_behind_others
from reid.errors import UserError
from tests.cluster.conftest import Commands
from tests.runs import STAGE1, STAGE2, Lab, make_lab, remains

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = """
rule slow:
    output: "slow.txt"
    shell: "touch started; while [ ! -e go ]; do sleep 0.1; done; touch {output}"
"""
SLOW = """
import time
import torch
step = torch.optim.Adam.step
torch.optim.Adam.step = lambda *a, **k: (time.sleep(0.1), step(*a, **k))[1]
"""
LAUNCH = ["stage2", "--training", "small", "--config", "config.yaml"]


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


def submit(work: Work) -> "submitit.Job[None]":
    """Start a job on this machine, in its working directory."""
    executor = submitit.LocalExecutor(work.root / "logs")
    executor.update_parameters(timeout_min=10)
    return executor.submit(work)


def send(job: Any, number: int) -> None:
    """Send a signal to the process of a job, as Slurm does."""
    psutil.Process(job._process.pid).children()[0].send_signal(number)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, dict[str, Any]]:
    """A lab where stage 1 is done, and what an undisturbed stage 2 leaves there."""
    lab = make_lab(tmp_path_factory.mktemp("launch"))
    for name in ("cluster", "config", "reid", "slurm", "workflow"):
        (lab.folder / name).symlink_to(ROOT / name)
    assert lab.finish(*STAGE1) == 0, lab.log()
    assert lab.finish(*STAGE2) == 0, lab.log()
    return lab, remains(lab.run)


@pytest.fixture(scope="module")
def plan() -> dict[str, requests.Request]:
    """What Snakemake plans, asked once: it takes seconds."""
    with chdir(ROOT):
        return requests.planned("slurm")


@pytest.fixture
def lab(
    trained: tuple[Lab, dict[str, Any]],
    plan: dict[str, requests.Request],
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:
    """The lab before stage 2, and the working directory."""
    lab, _ = trained
    monkeypatch.setattr(requests, "planned", lambda _: plan)
    for path in (*lab.run.glob("stage2.*"), *(lab.run / "checkpoints" / "stage2").iterdir()):
        path.unlink()
    (lab.run / "attempts.jsonl").unlink(missing_ok=True)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lab


@pytest.fixture
def expected(trained: tuple[Lab, dict[str, Any]]) -> dict[str, Any]:
    return trained[1]


def events(lab: Lab) -> list[str]:
    lines = (lab.run / "attempts.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_a_stage_runs_here(
    lab: Lab, expected: dict[str, Any], executor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*LAUNCH, "--executor", executor]) == 0
    assert "stage 2 of small: 18/18 steps" in "".join(capfd.readouterr())
    assert remains(lab.run) == expected


def test_two_processes_find_each_other(lab: Lab, expected: dict[str, Any]) -> None:
    assert main([*LAUNCH, "--executor", "local", "--gpus", "2"]) == 0
    assert events(lab) == ["start", "done"], "only one of them writes"
    losses = [json.loads(line) for line in (lab.run / "stage2.jsonl").read_text().splitlines()]
    alone = [json.loads(line) for line in expected["stage2.jsonl"].splitlines()]
    assert [r["loss"] for r in losses if "loss" in r] == pytest.approx(
        [r["loss"] for r in alone if "loss" in r], rel=1e-4
    )


def test_a_stage_told_of_its_time_limit_saves_and_goes_on(
    lab: Lab, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = lab.folder / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{slow}:{ROOT}")
    job = submit(Stage(lab.folder, [*STAGE2, "--config", "config.yaml"], grace=60))
    until((lab.run / "stage2.jsonl").exists, "the first step")
    send(job, signal.SIGUSR2)
    job.result()
    assert events(lab) == ["start", "stopped", "start", "done"]
    assert "resuming before epoch" in job.stdout()
    assert remains(lab.run) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage2", "--training", "smal"], "no training 'smal' (did you mean small?)"),
        (["stage2", "--training", "small", "--", "-n"], "unexpected after --: -n"),
        (["stage2", "--training", "small", "--gpus", "3", "--nodes", "2"], "multiple of --nodes"),
        (["stage2", "--training", "small", "--profile", "nowhere"], "nowhere: no profile here"),
        (["stage1", "--training", "small", "--seed", "9"], "it failed: "),
    ],
)
def test_what_cannot_be_launched_is_one_line(
    lab: Lab, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--executor", "local", "--config", "config.yaml"]
    assert main([arguments[0], *here, *arguments[1:]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_without_slurm_the_default_executor_says_what_else_there_is(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(lab.folder))
    assert main(LAUNCH) == 1
    assert "error: no Slurm here (sbatch, srun): try --executor local" in capsys.readouterr().err


def test_what_sbatch_refuses_is_told(
    lab: Lab, commands: Commands, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    refuse = "echo 'sbatch: error: Invalid partition name specified: nowhere' >&2; exit 1"
    commands(sbatch=f"cat $1 > asked; {refuse}", srun="true")
    config = ["--config", str(lab.folder / "config.yaml"), "--profile", str(ROOT / "slurm")]
    assert main([*LAUNCH[:3], *config, "--partition", "nowhere", "--notice", "90"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "error: sbatch refuses: sbatch: error: Invalid partition name specified: nowhere"
    asked = Path("asked").read_text().splitlines()
    for option in ("partition=nowhere", "time=1440", "signal=USR2@90", "cpus-per-task=8",
                   "mem=48GB", "requeue", "gpus=a100:1"):  # fmt: skip
        assert f"#SBATCH --{option}" in asked


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workflow of one job, which waits until `go` is there."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_controller_told_of_its_time_limit_goes_on(project: Path) -> None:
    job = submit(Controller(project, ["--cores", "1"], grace=1.0))
    until((project / "started").exists, "the job")
    (project / "started").unlink()
    send(job, signal.SIGUSR2)
    until((project / "started").exists, "the job of the second start")
    (project / "go").touch()
    job.result()
    assert (project / "slow.txt").exists()
    assert "Unlocked working directory" in job.stderr() + job.stdout()
    assert not LOCKS.exists()


def test_a_preempted_controller_releases_its_lock(project: Path) -> None:
    job = submit(Controller(project, ["--cores", "1"], grace=600))
    until((project / "started").exists, "the job")
    assert LOCKS.exists()
    send(job, signal.SIGTERM)
    assert "ended with code -9" in str(job.exception())
    assert not LOCKS.exists()
    (project / "go").touch()


def test_a_workflow_that_fails_fails_the_controller_and_the_lock_of_another_one_stays(
    project: Path,
) -> None:
    lock = LOCKS / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("slow.txt\n")
    with pytest.raises(UserError, match="Snakemake ended with code 1, see above"):
        Controller(project, ["--cores", "1"], grace=1.0)()
    assert lock.exists()
    assert not (project / "started").exists()


def test_jobs_that_wait_for_others_are_told_from_the_rest(tmp_path: Path) -> None:
    comment = "rule_stage2_wildcards_demo_x_1"
    jobs = [
        Job("1", "PENDING", "Dependency", comment, tmp_path),
        Job("2", "PENDING", "Priority", comment, tmp_path),
        Job("3", "PENDING", "Dependency", comment, tmp_path / "elsewhere"),
        Job("4", "PENDING", "Dependency", "mine", tmp_path),
    ]
    assert waiting_behind_others(jobs, tmp_path) == ["1"]


def test_the_job_we_are_in_leaves_no_trace_in_others() -> None:
    environment = {"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SRUN_DEBUG": "3"}
    assert outside(environment) == {"PATH": "/bin", "SLURM_CONF": "/c"}

"""Single stages on submitit's executors that need no Slurm, and what Slurm would be asked for."""

import json
import re
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

from cluster import requests
from cluster.launch import main
from tests.cluster.conftest import Commands
from tests.runs import STAGE1, STAGE2, Lab, make_lab, remains

ROOT = Path(__file__).resolve().parents[2]
Plan = dict[str, requests.Request]
LAUNCH = ["stage2", "--training", "small", "--config", "config.yaml"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, dict[str, Any]]:
    """A lab where stage 1 is done, and what an undisturbed stage 2 leaves there."""
    lab = make_lab(tmp_path_factory.mktemp("launch"))
    for name in ("cluster", "config", "reid", "slurm", "workflow"):
        (lab.folder / name).symlink_to(ROOT / name)
    assert lab.finish(*STAGE1) == 0, lab.log()
    assert lab.finish(*STAGE2) == 0, lab.log()
    return lab, remains(lab)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """What Snakemake plans, asked once: it takes seconds."""
    with chdir(ROOT):
        return requests.planned("slurm")


@pytest.fixture
def lab(
    trained: tuple[Lab, dict[str, Any]],
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:
    """The lab before stage 2, and the working directory."""
    lab, _ = trained
    monkeypatch.setattr(requests, "planned", lambda _: plan)
    for path in lab.run.glob("stage2.*"):
        path.unlink()
    shutil.rmtree(lab.work(), ignore_errors=True)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lab


@pytest.fixture
def expected(trained: tuple[Lab, dict[str, Any]]) -> dict[str, Any]:
    return trained[1]


def events(lab: Lab) -> list[str]:
    lines = (lab.work() / "attempts.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_a_stage_runs_here(
    lab: Lab, expected: dict[str, Any], executor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*LAUNCH, "--executor", executor]) == 0
    assert "stage 2 of small: 18/18 steps" in "".join(capfd.readouterr())
    assert remains(lab) == expected


def test_two_processes_find_each_other(lab: Lab, expected: dict[str, Any]) -> None:
    assert main([*LAUNCH, "--executor", "local", "--gpus", "2"]) == 0
    assert events(lab) == ["start", "done"], "only one of them writes"
    losses = [json.loads(line) for line in (lab.work() / "stage2.jsonl").read_text().splitlines()]
    alone = [json.loads(line) for line in expected["stage2.jsonl"].splitlines()]
    assert [r["loss"] for r in losses if "loss" in r] == pytest.approx(
        [r["loss"] for r in alone if "loss" in r], rel=1e-4
    )


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


@pytest.fixture
def slurm(commands: Commands, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options by which a stage is launched on a Slurm that only notes what it gets."""
    monkeypatch.setattr(requests, "planned", lambda _: plan)
    answer = "echo Submitted batch job 42; grep -q partition=nowhere asked || exit 0"
    commands(sbatch=f"cat $1 > asked; {answer}; echo Invalid partition >&2; exit 1", srun="true")
    return ["--config", str(ROOT / "config/config.yaml"), "--profile", str(ROOT / "slurm")]


@pytest.mark.parametrize(
    ("arguments", "options", "command"),
    [
        ("stage2 --training baseline",
         "gpus=a100:1 cpus-per-task=8 mem=48GB nodes=1 ntasks-per-node=1 time=1440 signal=USR2@120",
         "train stage2 --wait 5 --training baseline --seed 1"),
        ("stage2 --training baseline --gpus 4 --nodes 2 --minutes 99 --notice 40 --qos high",
         "gpus=a100:4 cpus-per-task=8 mem=96GB nodes=2 ntasks-per-node=2 time=99 signal=USR2@40 "
         "qos=high", "train stage2 --wait 5 --training baseline --seed 1"),
        ("stage1 --training baseline --seed 7", "gpus=a100:1 ntasks-per-node=1 time=1440",
         "train stage1 --wait 5 --training baseline --seed 7"),
        ("extract --training baseline --protocol A2A", "gpus=a100:1 time=480",
         "extract --protocol A2A --training baseline --seed 1"),
        ("controller --partition cpu --account me -- results/x",
         "partition=cpu account=me cpus-per-task=2 mem=8GB", "--profile PROFILE results/x"),
    ],
)  # fmt: skip
def test_what_slurm_is_asked_for(
    slurm: list[str], arguments: str, options: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    what, *more = arguments.split()
    files, profile = slurm[:2], slurm[2:]
    assert main([what, *profile, *(files if what != "controller" else []), *more]) == 0
    assert "job 42 submitted; its log: tail -F " in capsys.readouterr().out
    script = Path("asked").read_text()
    asked = re.findall(r"^#SBATCH --(\S+)", script, re.MULTILINE)
    assert {*options.split(), "requeue"} <= set(asked)
    assert any("gpu" in option for option in asked) == ("gpu" in options)
    assert "None" not in script
    cpus = next(option for option in asked if option.startswith("cpus-per-task"))
    assert f"--{cpus}" in next(line for line in script.splitlines() if line.startswith("srun"))
    (pickle,) = Path(".snakemake/launch/42").glob("*_submitted.pkl")
    delayed = DelayedSubmission.load(pickle)
    assert delayed._timeout_countdown > 1000, "it may run out of time as often as it needs"
    expected = command.replace("PROFILE", profile[1])
    assert " ".join(delayed.function.arguments).startswith(expected)
    assert delayed.function.grace == (20 if "USR2@40" in options else 90)


def test_what_sbatch_refuses_is_told(slurm: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["stage2", "--training", "baseline", *slurm, "--partition", "nowhere"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "error: sbatch refuses: Invalid partition"

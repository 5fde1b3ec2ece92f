"""The doctor on recorded text of a real Slurm 22.05, edited into what other clusters say."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import doctor, probe
from cluster.doctor import Case, Finding, main
from cluster.requests import Profile, Request
from reid import config
from reid.files import read_json
from tests.cluster.conftest import Commands

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "recorded"
STAGE2 = Request("stage2", minutes=1440, cpus=8, mem_mb=49152, options={"gpus": "a100:1"})


def case(old: str = "", new: str = "", *, partition: str = "", accounting: bool = False,
         requeue: bool = False, gpus: str = "a100:1", device: str = "auto") -> Case:  # fmt: skip
    """The recorded cluster with a text replaced, and a profile that asks for stage 2."""
    texts = [(RECORDED / f"{name}.txt").read_text() for name in ("config", "partitions")]
    assert any(old in text for text in texts)
    cluster, partitions = (text.replace(old, new) if old else text for text in texts)
    options = {"gpus": gpus, **({"partition": partition} if partition else {})}
    request = replace(STAGE2, options=options)
    settings = config.load([ROOT / "config/config.yaml"])
    runtime = settings.runtime.model_copy(update={"device": device})
    return Case(
        doctor.parse_config(cluster),
        doctor.parse_partitions(partitions),
        accounting,
        Profile(Path("slurm/config.yaml"), {"slurm-requeue": requeue}, {"stage2": request}),
        settings.model_copy(update={"runtime": runtime}),
    )


FORGETS = ("MinJobAge               = 300", "MinJobAge = 2")
NO_REQUEUE = ("JobRequeue              = 1", "JobRequeue = 0")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (case(), ""),
        (case(partition="nowhere"), ""),  # sbatch says so
        (case(*FORGETS, accounting=True), ""),
        (case(*NO_REQUEUE, requeue=True), ""),
        (case("preempt/partition_prio", "preempt/none"), ""),
        (case(*FORGETS), "problem accounting: squeue forgets a finished job after 2 s (MinJobAge)"
         " | ask the administrators for MinJobAge=120 or for accounting"),
        (case(*NO_REQUEUE), "warn requeue: off (JobRequeue=0) | slurm-requeue: true"),
        (case("= 30 sec", "= 5 sec"), "warn KillWait: only 5 s | checkpoint_minutes"),
        (case("State=UP", "State=DOWN"), "problem partition of stage2: gpu is DOWN | wait"),
        (case("MaxTime=1-00:00:00", "MaxTime=08:00:00"), "problem partition of stage2: "
         "1440 minutes are asked for, gpu allows 480 | to at most 480"),
        (case(partition="scavenge"), "warn preemption in scavenge: the job is not put back into"
         " the queue (PreemptMode=CANCEL) | raise retries"),
        (case("PreemptMode=REQUEUE", "PreemptMode=GANG,SUSPEND"),
         "warn preemption in gpu: the job is not put back | requeues"),
    ],
)  # fmt: skip
def test_every_check_can_succeed_and_fail(what: Case, expected: str) -> None:
    checks = [check for check in doctor.CHECKS if check is not doctor.accepted]
    findings = [finding for check in checks for finding in check(what)]
    bad = [finding for finding in findings if finding.level != "ok"]
    assert len(findings) >= 3
    assert len(bad) == bool(expected)
    for finding in bad:
        found, advice = expected.split(" | ")
        assert f"{finding.level} {finding.subject}: {finding.found}".startswith(found)
        assert advice in finding.advice


def test_what_sbatch_refuses_is_told_with_what_nodes_offer(commands: Commands) -> None:
    refuse = "case $* in *h100*) echo 'allocation failure: no such node' >&2; exit 1;; esac"
    commands(sbatch=refuse, sinfo="echo $*")
    assert [f.level for f in doctor.accepted(case())] == ["ok"]
    (finding,) = doctor.accepted(case(gpus="h100:1"))
    assert finding[:3:2] == ("problem", "refused: allocation failure: no such node")
    asked = "asked for --time=1440 --cpus-per-task=8 --mem=49152M --nodes=1 --gpus=h100:1"
    assert asked in finding.advice
    assert "Nodes offer -h --partition=gpu -o" in finding.advice


@pytest.mark.parametrize(
    ("text", "expected"),
    [("UNLIMITED", float("inf")), ("1-00:00:00", 1440), ("7-12:30:00", 10830), ("00:45:00", 45)],
)
def test_minutes(text: str, expected: float) -> None:
    assert doctor.minutes(text) == expected


def bad(paths: dict[str, list[str]], gpus: int) -> list[str]:
    return [f"{f.subject}: {f.found}" for f in probe.look(paths, gpus) if f.level != "ok"]


def test_a_node_names_what_it_cannot_read_and_the_gpus_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, gone = tmp_path / "weights.pt", str(tmp_path / "gone")
    file.touch()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda gpu: "A100")
    assert bad({"dataset": [str(tmp_path)], "weights": [str(file)]}, gpus=1) == []
    assert bad({"dataset": [gone], "weights": [str(file), gone]}, gpus=0) == [
        f"{kind}: the node cannot read {gone}: No such file or directory"
        for kind in ("dataset", "weights")
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert bad({}, 2) == ["GPU: torch sees 1 of 2 on the node (CUDA_VISIBLE_DEVICES=0)"]
    monkeypatch.setitem(sys.modules, "torch", None)
    (message,) = bad({}, 1)
    assert message.startswith("GPU: torch does not start on the node: ModuleNotFoundError")


QUEUED = "echo '5|PENDING|Priority|(null)|/'"


@pytest.mark.parametrize(
    ("script", "squeue", "patience", "level", "found"),
    [
        (f"{sys.executable} -m cluster.probe $PWD", QUEUED, 9, "ok", "a file of the node was seen"),
        ("true", QUEUED, 0, "warn", "still PENDING (Priority) after 0 s"),
        ("true", "", 9, "problem", "5 ended without a trace: see "),
        ("echo ImportError > log", "", 9, "problem", "5 ended with an error"),
    ],
    ids=["well", "waits", "no trace", "error"],
)
def test_the_test_job(
    commands: Commands, monkeypatch: pytest.MonkeyPatch,
    script: str, squeue: str, patience: float, level: str, found: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(doctor, "UNSEEN_SECONDS", 0)
    monkeypatch.setattr(doctor, "_inputs", lambda settings: {})
    script = f"echo $* > asked; cd .snakemake/doctor/*; {script}; echo '5;testbed'"
    commands(sbatch=script, squeue=squeue, scancel="echo $1 > cancelled")
    device = "cpu" if level == "ok" else "auto"
    findings = list(doctor.trial(case(device=device), patience))
    assert (
        "--time=5 --cpus-per-task=8 --mem=49152M --nodes=1 --gpus=a100:1 "
        in Path("asked").read_text()
    )
    (spec,) = Path().glob(".snakemake/doctor/*/spec.json")
    assert read_json(spec) == {"paths": {}, "gpus": int(device == "auto")}
    assert {finding.level for finding in findings} == {level}
    assert any(finding.found.startswith(found) for finding in findings)
    assert Path("cancelled").exists() == (level == "warn")


@pytest.mark.parametrize(
    ("levels", "code", "last"),
    [("ok ok", 0, "all is well"), ("warn ok", 0, "0 problem(s), 1 warning(s)"),
     ("problem warn ok", 1, "1 problem(s), 1 warning(s)")],
)  # fmt: skip
def test_the_exit_code_says_whether_there_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    levels: str, code: int, last: str,
) -> None:  # fmt: skip
    findings = [Finding(level, "x", "y") for level in levels.split()]  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "gather", lambda arguments: case())
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "trial", lambda *_: iter(findings))
    assert main([]) == code
    assert capsys.readouterr().out.endswith(f"\n{last}\n")
    assert main(["--no-job"]) == 0
    assert capsys.readouterr().out.endswith("\nall is well\n")


def test_where_there_is_no_slurm_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--no-job"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: no Slurm here: sbatch, scontrol, ")
    assert (len(printed.err.splitlines()), printed.out) == (1, "")

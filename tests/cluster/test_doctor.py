"""The doctor on recorded text of a real Slurm 22.05, edited into what other clusters say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import doctor, probe
from cluster.doctor import Case, Finding, main
from cluster.requests import Profile, Request
from reid import config
from tests.cluster.test_executor import scripts

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "recorded"
STAGE2 = Request("stage2", minutes=1440, cpus=8, mem_mb=49152, options={"gpus": "a100:1"})
Edit = Callable[[str], str]


def case(
    config_text: Edit = str,
    partitions: Edit = str,
    *,
    accounting: bool = False,
    request: Request = STAGE2,
    **settings: object,
) -> Case:
    """The recorded cluster, with its texts edited."""
    options = {name.replace("_", "-"): value for name, value in settings.items()}
    return Case(
        doctor.parse_config(config_text((RECORDED / "config.txt").read_text())),
        doctor.parse_partitions(partitions((RECORDED / "partitions.txt").read_text())),
        accounting,
        Profile(Path("slurm/config.yaml"), options, {request.rule: request}),
        config.load([ROOT / "config/config.yaml"]),
    )


def edited(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


def on(partition: str) -> Request:
    return replace(STAGE2, options={**STAGE2.options, "partition": partition})


def findings(what: Case) -> list[Finding]:
    """Of all checks but those that run a command."""
    checks = [check for check in doctor.CHECKS if check is not doctor.accepted]
    return [finding for check in checks for finding in check(what)]


def test_the_recorded_cluster_is_well() -> None:
    assert {finding.level for finding in findings(case())} == {"ok"}


@pytest.mark.parametrize(
    ("what", "level", "found", "advice"),
    [
        pytest.param(
            case(edited("MinJobAge               = 300", "MinJobAge = 2")),
            "problem", "squeue forgets a finished job after 2 s",
            "ask the administrators for MinJobAge=120 or for accounting",
            id="forgets at once, no accounting",
        ),
        pytest.param(
            case(edited("JobRequeue              = 1", "JobRequeue = 0")),
            "warn", "counts as failed", "slurm-requeue: true",
            id="no requeue",
        ),
        pytest.param(
            case(edited("KillWait                = 30", "KillWait = 5")),
            "warn", "only 5 s", "checkpoint_minutes",
            id="no time to save",
        ),
        pytest.param(
            case(partitions=edited("State=UP", "State=DOWN")),
            "problem", "gpu is DOWN", "wait",
            id="partition down",
        ),
        pytest.param(
            case(partitions=edited("MaxTime=1-00:00:00", "MaxTime=08:00:00")),
            "problem", "1440 minutes are asked for, gpu allows 480", "to at most 480",
            id="too long",
        ),
        pytest.param(
            case(request=on("scavenge")),
            "warn", "not put back into the queue (PreemptMode=CANCEL)", "raise retries",
            id="preempted for good",
        ),
        pytest.param(
            case(partitions=edited("PreemptMode=REQUEUE", "PreemptMode=GANG,SUSPEND")),
            "warn", "(PreemptMode=GANG,SUSPEND)", "requeues",
            id="suspended",
        ),
    ],
)  # fmt: skip
def test_every_check_can_fail(what: Case, level: str, found: str, advice: str) -> None:
    (finding,) = [finding for finding in findings(what) if finding.level != "ok"]
    assert finding.level == level
    assert found in finding.found
    assert advice in finding.advice


def test_accounting_makes_up_for_a_forgetful_squeue_and_the_profile_for_no_requeue() -> None:
    forgets = edited("MinJobAge               = 300", "MinJobAge = 2")
    assert {f.level for f in findings(case(forgets, accounting=True))} == {"ok"}
    off = edited("JobRequeue              = 1", "JobRequeue = 0")
    assert {f.level for f in findings(case(off, slurm_requeue=True))} == {"ok"}


def test_what_sbatch_refuses_is_told_with_what_nodes_offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = "case $* in *h100*) echo 'allocation failure: no such node' >&2; exit 1;; esac"
    scripts(tmp_path, monkeypatch, sbatch=refuse, sinfo="echo $*")
    assert [f.level for f in doctor.accepted(case())] == ["ok"]
    (finding,) = doctor.accepted(case(request=replace(STAGE2, options={"gpus": "h100:1"})))
    assert (finding.level, finding.found) == (
        "problem",
        "refused: allocation failure: no such node",
    )
    assert "asked for --time=1440 --cpus-per-task=8 --mem=49152M --nodes=1 --gpus=h100:1" in (
        finding.advice
    )
    assert "Nodes offer -h --partition=gpu -o" in finding.advice


@pytest.mark.parametrize(
    ("text", "found"),
    [("UNLIMITED", float("inf")), ("1-00:00:00", 1440), ("7-12:30:00", 10830), ("00:45:00", 45)],
)
def test_minutes(text: str, found: float) -> None:
    assert doctor.minutes(text) == found


SEEN: dict[str, Any] = {
    "host": "n1",
    "token": {"found": "abc"},
    "dataset": {"data": {"found": 4}},
    "weights": {"w.pt": {"found": 100}},
    "visible": "0",
    "gpus": {"found": ["A100"]},
}


@pytest.mark.parametrize(
    ("what", "saw", "says"),
    [
        ("token", {"found": "old"}, "sees an old state of this folder"),
        ("dataset", {"data": {"error": "FileNotFoundError: data"}}, "cannot read data"),
        ("weights", {"w.pt": {"error": "PermissionError: w.pt"}}, "cannot read w.pt"),
        ("gpus", {"found": []}, "torch sees 0 of 1"),
        ("gpus", {"error": "ImportError: libc"}, "ImportError: libc"),
    ],
)
def test_what_the_node_saw_is_judged(what: str, saw: object, says: str) -> None:
    assert not any(advice for _, _, advice in probe.judge(SEEN, token="abc", gpus=1))
    judged = probe.judge({**SEEN, what: saw}, token="abc", gpus=1)
    assert [says in found for _, found, advice in judged if advice] == [True]


def test_the_probe_sees_a_good_folder_and_names_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    (tmp_path / "weights.pt").write_text("w")
    there, gone = str(tmp_path / "weights.pt"), str(tmp_path / "gone")
    saw = probe.look(
        {"folder": str(tmp_path), "dataset": [str(tmp_path), gone], "weights": [there, gone]}
    )
    wrong = [(kind, gone in found) for kind, found, advice in
             probe.judge(saw, token="abc", gpus=0) if advice]  # fmt: skip
    assert wrong == [("dataset", True), ("weights", True)]


def test_where_there_is_no_slurm_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--no-job"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: no Slurm here: sbatch, scontrol, ")
    assert len(printed.err.splitlines()) == 1
    assert not printed.out

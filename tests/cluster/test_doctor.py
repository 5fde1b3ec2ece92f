"""The doctor on recorded text of a real Slurm 22.05, edited into what other clusters say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor import checks, facts, judge, probe
from cluster.doctor.__main__ import main
from cluster.doctor.facts import Cluster
from cluster.doctor.finding import Finding, summary
from cluster.requests import Profile, Request

RECORDED = Path(__file__).parent / "recorded"
STAGE2 = Request("stage2", minutes=1440, cpus=8, mem_mb=49152, gpus=1, gpu_model="a100")
INDEX = Request("index", minutes=240, cpus=8, mem_mb=8192)
SQUEUE = {"slurm-status-command": "squeue", "slurm-requeue": True}
Edit = Callable[[str], str]


def cluster(
    config: Edit = str, partitions: Edit = str, nodes: Edit = str, *, accounting: bool = False
) -> Cluster:
    """The recorded cluster, with its texts edited."""
    return Cluster(
        facts.parse_config(config((RECORDED / "config.txt").read_text())),
        facts.parse_partitions(partitions((RECORDED / "partitions.txt").read_text())),
        facts.parse_nodes(nodes((RECORDED / "nodes.txt").read_text())),
        accounting,
    )


def edited(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


def profile(*requests: Request, **settings: object) -> Profile:
    chosen = requests or (STAGE2, INDEX)
    return Profile(
        Path("slurm/config.yaml"),
        {**SQUEUE, **{key.replace("_", "-"): value for key, value in settings.items()}},
        {request.rule: request for request in chosen},
    )


def complaints(where: Cluster, what: Profile | None = None) -> list[Finding]:
    return [f for f in checks.every(where, what or profile()) if f.level != "ok"]


def test_the_recorded_cluster_is_well() -> None:
    findings = list(checks.every(cluster(), profile()))
    assert {finding.level for finding in findings} == {"ok"}, "\n".join(map(str, findings))
    assert summary(findings) == "all is well"
    assert any("2 of gpu can run stage2, index" in finding.found for finding in findings)


NO_ACCOUNTING = "ask the administrators for MinJobAge=120 or for accounting"


@pytest.mark.parametrize(
    ("where", "what", "level", "found", "advice"),
    [
        pytest.param(
            cluster(edited("MinJobAge               = 300", "MinJobAge = 2")),
            profile(), "problem", "squeue forgets a finished job after 2 s", NO_ACCOUNTING,
            id="forgets at once, no accounting",
        ),
        pytest.param(
            cluster(edited("MinJobAge               = 300", "MinJobAge = 2"), accounting=True),
            profile(), "warn", "squeue forgets", "to sacct, which works here",
            id="forgets at once",
        ),
        pytest.param(
            cluster(), profile(slurm_status_command="sacct"),
            "problem", "no job would ever be seen to end", "slurm-status-command",
            id="sacct is asked and dead",
        ),
        pytest.param(
            cluster(edited("JobRequeue              = 1", "JobRequeue = 0")),
            profile(slurm_requeue=False), "warn", "counts as failed", "slurm-requeue: true",
            id="no requeue",
        ),
        pytest.param(
            cluster(edited("KillWait                = 30", "KillWait = 5")),
            profile(), "warn", "only 5 s", "checkpoint_minutes",
            id="no time to save",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, partition="gpus")),
            "problem", "gpus does not exist (did you mean gpu?)", "name one of gpu, spot",
            id="partition misspelt",
        ),
        pytest.param(
            cluster(partitions=edited("Default=YES", "Default=NO")), profile(STAGE2),
            "problem", "the cluster has no default", "slurm_partition in slurm/config.yaml",
            id="no default partition",
        ),
        pytest.param(
            cluster(partitions=edited("State=UP", "State=DOWN")), profile(STAGE2),
            "problem", "gpu is not up", "wait",
            id="partition down",
        ),
        pytest.param(
            cluster(partitions=edited("MaxTime=1-00:00:00", "MaxTime=08:00:00")), profile(STAGE2),
            "problem", "1440 minutes are asked for, gpu allows 480", "to at most 480",
            id="too long",
        ),
        pytest.param(
            cluster(partitions=edited("MaxNodes=UNLIMITED", "MaxNodes=1")),
            profile(replace(STAGE2, gpus=8, nodes=2)),
            "problem", "2 nodes are asked for, gpu allows 1", "lower nodes",
            id="too many nodes",
        ),
        pytest.param(
            cluster(partitions=edited("AllowAccounts=ALL", "AllowAccounts=ml,vision")),
            profile(STAGE2), "problem", "accounts ml, vision only", "set slurm_account",
            id="account",
        ),
        pytest.param(
            cluster(partitions=edited("AllowQos=ALL", "AllowQos=long")),
            profile(STAGE2), "problem", "QOS long only", "set qos",
            id="qos",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, partition="scavenge")),
            "warn", "cancelled and not put back", "raise retries",
            id="preempted for good",
        ),
        pytest.param(
            cluster(partitions=edited("PreemptMode=REQUEUE", "PreemptMode=GANG,SUSPEND")),
            profile(STAGE2), "warn", "stopped in place (PreemptMode=GANG,SUSPEND)", "requeues",
            id="suspended",
        ),
        pytest.param(
            cluster(nodes=edited("gpu:a100:4", "gpu:h100:4(S:0,1),nvme:1")), profile(STAGE2),
            "problem", "1 GPU(s) called a100. GPUs offered: gpu:h100:4", "set gpu_model",
            id="other GPUs",
        ),
        pytest.param(
            cluster(nodes=edited("gpu:a100:4", "gpu:4")), profile(STAGE2),
            "problem", "GPUs offered: gpu:any:4", "set gpu_model",
            id="GPUs without names",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, partition="cpu")),
            "problem", "1 GPU(s) per node. GPUs offered: none", "or name another partition",
            id="no GPUs",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, gpus=0, gpu_model=None, gres="gpu:a100:5")),
            "problem", "5 GPU(s) per node. GPUs offered: gpu:a100:4", "set gpu of stage2",
            id="too many GPUs by gres",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, cpus=65)),
            "problem", "65 CPUs (at most 64)", "set cpus_per_task",
            id="too many CPUs",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, mem_mb=600_000)),
            "problem", "600000 MB (at most 524288)", "set mem_mb",
            id="too much memory",
        ),
        pytest.param(
            cluster(), profile(replace(STAGE2, constraint="a100_80g")),
            "problem", "the feature a100_80g", "set constraint",
            id="unknown feature",
        ),
        pytest.param(
            cluster(nodes=edited("State=", "State=DOWN+")), profile(STAGE2),
            "warn", "are down or drained now", "sinfo -R",
            id="nodes down",
        ),
    ],
)  # fmt: skip
def test_every_check_can_fail(
    where: Cluster, what: Profile, level: str, found: str, advice: str
) -> None:
    (finding,) = complaints(where, what)
    assert finding.level == level
    assert found in finding.found
    assert advice in finding.advice


def test_several_partitions_and_expressions_are_left_to_slurm() -> None:
    assert not complaints(cluster(), profile(replace(STAGE2, partition="gpu,spot")))
    assert not complaints(cluster(), profile(replace(STAGE2, constraint="a100&nvlink")))


def test_one_gpu_by_gres_and_gpus_of_several_nodes_fit() -> None:
    by_gres = replace(STAGE2, gpus=0, gpu_model=None, gres="gpu:a100:1")
    assert not complaints(cluster(), profile(by_gres))
    assert not complaints(cluster(), profile(replace(STAGE2, gpus=8, nodes=2)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:a100:4", {"a100": 4}),
        ("gpu:nvidia_a100-sxm4-40gb:8(S:0,1)", {"nvidia_a100-sxm4-40gb": 8}),
        ("gpu:a100:2(S:0),gpu:2080ti:1,shard:8,craynetwork:4", {"a100": 2, "2080ti": 1}),
    ],
)
def test_gres(text: str, found: dict[str, int]) -> None:
    assert facts.parse_gres(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("UNLIMITED", None), ("1-00:00:00", 1440), ("7-12:30:00", 10830), ("00:45:00", 45)],
)
def test_minutes(text: str, found: int | None) -> None:
    assert facts.minutes(text) == found


SEEN: dict[str, Any] = {
    "host": "n1",
    "token": {"found": "abc"},
    "rename": {"found": True},
    "link": {"found": True},
    "dataset": {"data": {"found": 4}},
    "weights": {"w.pt": {"found": 100}},
    "visible": "0",
    "gpus": {"found": ["A100"]},
}


@pytest.mark.parametrize(
    ("what", "saw", "says"),
    [
        ("token", {"found": "old"}, "sees an old state of this folder"),
        ("rename", {"found": False}, "a renamed file replaces another"),
        ("link", {"error": "OSError: not supported"}, "OSError: not supported"),
        ("dataset", {"data": {"error": "FileNotFoundError: data"}}, "cannot read data"),
        ("weights", {"w.pt": {"error": "PermissionError: w.pt"}}, "cannot read w.pt"),
    ],
)
def test_what_the_node_saw_is_judged(what: str, saw: object, says: str) -> None:
    assert {f.level for f in judge.node(SEEN, token="abc")} == {"ok"}
    wrong = [f for f in judge.node({**SEEN, what: saw}, token="abc") if f.level == "problem"]
    assert [says in finding.found for finding in wrong] == [True]


def test_gpus_of_the_node_are_judged() -> None:
    assert [f.level for f in judge.gpus(SEEN, STAGE2)] == ["ok"]
    (finding,) = judge.gpus({**SEEN, "gpus": {"found": []}}, STAGE2)
    assert "torch sees 0 of 1" in finding.found
    (finding,) = judge.gpus({**SEEN, "gpus": {"error": "ImportError: libc"}}, STAGE2)
    assert "ImportError: libc" in finding.found


def test_the_probe_sees_a_good_folder_and_names_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    (tmp_path / "weights.pt").write_text("w")
    there, gone = str(tmp_path / "weights.pt"), str(tmp_path / "gone")
    report = probe.look(
        {"folder": str(tmp_path), "dataset": [str(tmp_path), gone], "weights": [there, gone]}
    )
    wrong = [f for f in judge.node(report, token="abc") if f.level != "ok"]
    assert [(f.subject, gone in f.found) for f in wrong] == [("dataset", True), ("weights", True)]


def test_where_there_is_no_slurm_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--no-job"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: no Slurm here: sbatch, scontrol, ")
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "example: python -m cluster.doctor" in capsys.readouterr().out

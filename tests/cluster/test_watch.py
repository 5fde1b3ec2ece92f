"""FAULTS 14 to 17 without a Slurm: what the watch makes of what squeue and sacct say."""

import asyncio
from collections.abc import Mapping

import pytest
import snakemake_executor_plugin_slurm as plugin

from cluster.watch import LINGER_SECONDS, VANISHED_SECONDS, Answer, Watch, install, patient

SQUEUE = "squeue --format='%i|%T' --states=all --noheader --name run"
SACCT = "sacct -X --parsable2 --name run"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def given_up() -> list[str]:
    return []


@pytest.fixture
def watch(told: list[str], given_up: list[str]) -> Watch:
    return Watch(told.append, give_up=given_up.append)


def test_what_the_executor_understands_passes_in_silence(watch: Watch, told: list[str]) -> None:
    said = {"1": "PENDING", "2": "RUNNING", "3": "COMPLETED", "4": "FAILED", "5": "TIMEOUT"}
    assert watch.settle(said, 0) == said
    assert told == []


@pytest.mark.parametrize(
    ("printed", "who"), [("CANCELLED by 1000", " by user 1000"), ("CANCELLED", "")]
)
def test_fault_16_cancelled_is_a_failure_and_told_once(
    watch: Watch, told: list[str], printed: str, who: str
) -> None:
    for now in (0, 20, 40):
        assert watch.settle({"7": printed}, now) == {"7": "CANCELLED"}
    (line,) = told
    assert line.startswith(f"Slurm job 7 was cancelled{who}: ")
    assert "Ctrl-C" in line


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_fault_14_fault_15_what_slurm_took_away_is_given_up_after_a_while(
    watch: Watch, told: list[str], given_up: list[str], state: str
) -> None:
    watch.settle({"7": "RUNNING"}, 0)
    assert watch.settle({"7": state}, 10) == {"7": state}
    assert watch.settle({"7": state}, 9 + LINGER_SECONDS) == {"7": state}
    assert given_up == []
    assert watch.settle({"7": state}, 10 + LINGER_SECONDS) == {"7": "CANCELLED"}
    assert given_up == ["7"]
    assert "did not put it back" in told[0]
    assert watch.settle({"7": state}, 300) == {"7": "CANCELLED"}
    assert len(told) == len(given_up) == 1


def test_fault_14_what_slurm_puts_back_into_its_queue_is_left_to_it(
    watch: Watch, told: list[str]
) -> None:
    for now, state in ((0, "PREEMPTED"), (30, "PENDING"), (500, "RUNNING"), (900, "PREEMPTED")):
        assert watch.settle({"7": state}, now) == {"7": state}
    assert told == []


@pytest.mark.parametrize("seconds", [1, 30, 300])
def test_fault_17_in_an_outage_no_job_is_forgotten(
    watch: Watch, told: list[str], seconds: int
) -> None:
    watch.settle({"7": "RUNNING", "8": "PENDING"}, 0)
    for now in range(5, 5 + seconds + 1, 5):
        assert watch.settle(None, now) == {"7": "RUNNING", "8": "PENDING"}
    done = {"7": "COMPLETED", "8": "RUNNING"}
    assert watch.settle(done, 5 + seconds) == done
    assert [line.partition(",")[0] for line in told] == [
        "Slurm does not answer. Its jobs go on without it; waiting. There is nothing to do",
        "Slurm answers again",
    ]


def test_a_job_that_nobody_remembers_is_given_up(
    watch: Watch, told: list[str], given_up: list[str]
) -> None:
    watch.settle({"7": "RUNNING"}, 0)
    assert watch.lacks({})
    assert watch.settle({}, 10) == {}
    assert watch.settle({}, 10 + VANISHED_SECONDS) == {"7": "CANCELLED"}
    assert given_up == ["7"]
    assert "how it ended is not known" in told[0]
    assert watch.settle({}, 20 + VANISHED_SECONDS) == {}


def test_a_job_that_ended_may_be_forgotten(watch: Watch, told: list[str]) -> None:
    watch.settle({"7": "COMPLETED"}, 0)
    assert not watch.lacks({})
    assert watch.settle({}, 1000) == {}
    assert told == []


def test_a_job_that_will_never_start_is_told_once(watch: Watch, told: list[str]) -> None:
    for _ in range(2):
        watch.hold({"7": "launch failed requeued held", "8": "(Resources)", "9": "Priority"})
    (line,) = told
    assert "`scontrol release 7`" in line


def query(watch: Watch, answers: Mapping[str, dict[str, str] | None], command: str) -> Answer:
    """One question through the patient one; `answers` by the first word of a command."""

    async def ask(asked: str, logger: object) -> Answer:
        if "--states=PD" in asked:
            return {}, 0.1
        said = answers[asked.split()[0]]
        return said, None if said is None else 0.1

    others = {"squeue": lambda run: f"sacct {run}", "sacct": lambda run: f"squeue {run}"}
    return asyncio.run(patient(ask, others, watch, clock=lambda: 0.0)(command, None))


def test_fault_17_without_accounting_squeue_is_asked(watch: Watch, told: list[str]) -> None:
    answers = {"sacct": None, "squeue": {"7": "COMPLETED"}}
    assert query(watch, answers, SACCT) == ({"7": "COMPLETED"}, 0.0)
    assert told == []


def test_a_job_that_squeue_forgot_is_looked_up_in_the_accounting(watch: Watch) -> None:
    query(watch, {"squeue": {"7": "RUNNING"}}, SQUEUE)
    states, _ = query(watch, {"squeue": {}, "sacct": {"7": "COMPLETED"}}, SQUEUE)
    assert states == {"7": "COMPLETED"}


def test_fault_17_there_is_always_an_answer(watch: Watch) -> None:
    assert query(watch, {"squeue": None, "sacct": None}, SQUEUE) == ({}, 0.0)


def test_the_executor_asks_through_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a new version of the executor asks in another way."""
    original = plugin.query_job_status
    monkeypatch.setattr(plugin, "query_job_status", original)  # so that it comes back
    install(lambda text: None)
    assert plugin.query_job_status is not original
    names = plugin.Executor.check_active_jobs.__code__.co_names
    assert "query_job_status" in names
    assert plugin.query_job_status_squeue("a run").endswith("--name a run")
    assert plugin.query_job_status_sacct("run").endswith("--name run")

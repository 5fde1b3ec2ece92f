"""Controller and stages as processes: real signals, real and fake commands."""

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import submitit

from cluster import work
from cluster.work import LOCKS, Controller, Stage, outside
from reid.errors import Stopped, UserError
from tests.cluster.conftest import Commands

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = """
rule slow:
    output: "slow.txt"
    shell: "touch started; while [ ! -e go ]; do sleep 0.1; done; touch {output}"
"""
STAND_IN = """
import signal, sys, time
from functools import partial
from pathlib import Path
with Path("calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if "--unlock" in sys.argv:
    sys.exit()
signal.signal(signal.SIGTERM, {on_term})
Path("started").touch()
time.sleep({seconds})
sys.exit({code})
"""
Fake = Callable[..., None]


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Makes `python -m reid` and `python -m snakemake` in other processes stand-ins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))
    handlers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in handlers}

    def make(*, code: object = 0, seconds: float = 0.0, on_term: str = "signal.SIG_DFL") -> None:
        for module in ("reid", "snakemake"):
            (tmp_path / "fakes" / module).mkdir(parents=True)
            text = STAND_IN.format(code=code, seconds=seconds, on_term=on_term)
            (tmp_path / "fakes" / module / "__init__.py").touch()
            (tmp_path / "fakes" / module / "__main__.py").write_text(text)

    yield make
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def when_started(command: work.Work, action: Callable[[], object]) -> None:
    """Do something in a signal handler, as submitit does, once the command is at work."""

    def handler(*_: object) -> None:
        if command._process is not None and Path("started").exists():
            action()
        else:  # not yet, and perhaps in the midst of starting it
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def exit_of(command: work.Work) -> tuple[type[Exception] | None, str]:
    try:
        command()
    except UserError as error:
        return type(error), str(error)
    return None, ""


@pytest.mark.parametrize(
    ("code", "rank", "error", "says"),
    [
        (0, 0, None, ""),
        (75, 0, Stopped, "progress is saved"),
        (75, 1, None, ""),
        (1, 1, UserError, "`reid train --x` ended with code 1"),
        (76, 0, UserError, "ended with code 76"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", 0, UserError, "with code -9"),
    ],
)
def test_exit_codes_of_a_stage(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, code: object, rank: int,
    error: type[Exception] | None, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(work, "JobEnvironment", lambda: SimpleNamespace(global_rank=rank))
    fake(code=code)
    kind, message = exit_of(Stage(tmp_path, ["train", "--x"], grace=1))
    assert kind is error
    assert says in message


def test_a_stage_gets_sigterm_and_only_submitit_the_notice(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "JobEnvironment", lambda: SimpleNamespace(global_rank=0))
    fake(seconds=60, on_term="lambda *_: sys.exit(75)")
    stage = Stage(tmp_path, ["train"], grace=30)
    again = []

    def near_the_time_limit() -> None:
        for process in psutil.Process().children():
            if process.cmdline()[1:3] == ["-m", "reid"]:
                process.send_signal(signal.SIGUSR2)
        again.append(stage.checkpoint().function)

    when_started(stage, near_the_time_limit)
    assert exit_of(stage)[0] is Stopped
    assert (again[0].root, again[0].arguments, again[0].grace) == (tmp_path, ["train"], 30)


WAITING = "rule_stage2_wildcards_demo_x_1"


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("preempted", [False, True])
def test_a_controller_that_is_killed_unlocks_its_folder_and_nobody_elses(
    tmp_path: Path, fake: Fake, commands: Commands, locked: bool, preempted: bool
) -> None:
    queue = f"""\
1|PENDING|Dependency|{WAITING}|{tmp_path}
2|PENDING|Priority|{WAITING}|{tmp_path}
3|PENDING|Dependency|{WAITING}|{tmp_path}/elsewhere
4|PENDING|Dependency|mine|{tmp_path}"""
    commands(squeue=f"cat <<end\n{queue}\nend", scancel="echo $* > cancelled")
    fake(seconds=60, on_term="signal.SIG_IGN")
    controller = Controller(tmp_path, ["--cores", "1"], grace=600 if preempted else 0.2)
    if locked:
        LOCKS.mkdir(parents=True)
        (LOCKS / "0.output.lock").touch()
    preempt = partial(signal.raise_signal, signal.SIGTERM)
    when_started(controller, preempt if preempted else controller.checkpoint)
    assert "Snakemake ended with code -9, see above" in exit_of(controller)[1]
    calls = ["--cores 1", "--cores 1 --unlock"]
    assert Path("calls").read_text().splitlines() == (calls[:1] if locked else calls)
    assert Path("cancelled").exists() != preempted
    assert preempted or Path("cancelled").read_text() == "1\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workflow of one job, which waits until `go` is there."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_controller_told_of_its_time_limit_goes_on(project: Path) -> None:
    executor = submitit.LocalExecutor(project / "logs")
    executor.update_parameters(timeout_min=10)
    job = executor.submit(Controller(project, ["--cores", "1"], grace=1.0))
    until((project / "started").exists, "the job")
    (project / "started").unlink()
    psutil.Process(job._process.pid).children()[0].send_signal(signal.SIGUSR2)
    until((project / "started").exists, "the job of the second start")
    (project / "go").touch()
    job.result()
    assert (project / "slow.txt").exists()
    assert "Unlocked working directory" in job.stderr() + job.stdout()
    assert not LOCKS.exists()


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


def test_the_job_we_are_in_leaves_no_trace_in_others() -> None:
    environment = {"PATH": "/bin", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SRUN_DEBUG": "3"}
    assert outside(environment) == {"PATH": "/bin", "SLURM_CONF": "/c"}

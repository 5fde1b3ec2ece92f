"""A clone of the project as a user of a cluster has it, and what happens in it."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from cluster import query
from reid import config

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RUN = Path("results/demo/train/baseline/seed1")
STAGE2 = f"{RUN}/stage2.safetensors"
LOG = "results/demo/logs/train/baseline/seed1/stage2.log"
STEPS = 32
"""Of stage 2 of `baseline` with tiny.yaml."""
slurm = query.ask
"""What a command of Slurm prints."""


def until(condition: Callable[[], object], what: str, seconds: float = 400) -> None:
    """Wait for a condition. Fails the test after a generous time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


def preempt(victim: str) -> None:
    """Take the node of a job for an urgent one, and wait until it has it."""
    urgent = slurm(
        "sbatch", "--parsable", "-p", "urgent", "-w", job(victim)["NodeList"],
        "--gres=gpu:a100:4", "-o", "/dev/null", "--wrap", "sleep 5",
    ).strip()  # fmt: skip
    until(lambda: job(urgent)["JobState"] in ("RUNNING", "COMPLETED"), "the urgent job")


def job(identifier: str) -> dict[str, str]:
    """`scontrol show job` by field."""
    return dict(re.findall(r"(\S+?)=(\S*)", slurm("scontrol", "show", "job", identifier)))


def time_is_nearly_up(identifier: str) -> None:
    """Bring the time limit of a running job so near that Slurm gives notice of it at once.

    A limit that is short from the start would not even let a job begin on a busy machine.
    """
    hours, minutes, _ = job(identifier)["RunTime"].split(":")
    limit = 60 * int(hours) + int(minutes) + 1
    slurm("scontrol", "update", f"JobId={identifier}", f"TimeLimit={limit}")


@dataclass(frozen=True)
class Controller:
    """A running Snakemake."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def jobs(self) -> list[str]:
        """Slurm's ids of the jobs that it submitted, in order."""
        return re.findall(r"submitted with SLURM jobid (\d+)", self.text)

    def submitted(self, count: int = 1) -> str:
        """Wait for the n-th job; its id."""
        until(lambda: len(self.jobs) >= count or self.over, f"job {count}:\n{self.text}")
        assert len(self.jobs) >= count, self.text
        return self.jobs[count - 1]

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def ends(self, seconds: float = 600) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.text}") from None

    def succeeds(self, seconds: float = 600) -> None:
        assert self.ends(seconds) == 0, self.text

    def send(self, number: int) -> None:
        """Send a signal to Snakemake and the children of its group, as a terminal does."""
        os.killpg(self.process.pid, number)


@dataclass(frozen=True)
class Site:
    """A clone with its own results."""

    path: Path
    started: list[Controller] = field(default_factory=list)

    @classmethod
    def clone(cls, path: Path, *, compiled: "Site | None" = None) -> "Site":
        """What git would clone, with the smallest experiment in config/config.yaml.

        `compiled`: a clone whose compiled kernels and modules it begins with.
        """
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source, target = ROOT / name, path / name
            if name and not name.startswith("tests/") and os.path.lexists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        for cache in [] if compiled is None else compiled.path.glob("reid/**/__pycache__"):
            shutil.copytree(cache, path / cache.relative_to(compiled.path))
        folder = path / "config"
        whole = config.load([folder / "config.yaml", folder / "demo.yaml", HERE / "tiny.yaml"])
        (folder / "config.yaml").write_text(
            yaml.safe_dump(whole.model_dump(mode="json"), sort_keys=False)
        )
        site = cls(path)
        site.edit("slurm-init-seconds-before-status-checks: 20", f"{POLL}: 2")
        return site

    def copy(self, path: Path) -> "Site":
        """A copy with the results so far, but not the traces of how they were made."""
        shutil.copytree(self.path, path, symlinks=True)
        for trace in (path / "steps.txt", *path.glob("controller*")):
            trace.unlink()
        return Site(path)

    def forget_stage2(self) -> None:
        """Remove what stage 2 of `baseline` has left."""
        shutil.rmtree(self.work)
        for file in (*self.run.glob("stage2.*"), self.path / LOG):
            file.unlink()

    def edit(self, old: str, new: str) -> None:
        """Edit the profile, as the user of a cluster does."""
        profile = self.path / "cluster" / "slurm" / "config.yaml"
        text = profile.read_text()
        assert old in text, f"{old!r} is not in {profile}"
        profile.write_text(text.replace(old, new))

    def to_partition(self, name: str, constraint: str | None = None) -> None:
        """Send GPU jobs to a partition, and there to nodes with a feature."""
        self.edit("# slurm_partition: \"'gpu'\"", f"slurm_partition: \"'{name}'\"")
        if constraint:
            self.edit("# constraint: \"'a100_80g'\"", f"constraint: \"'{constraint}'\"")

    def environment(self, step_seconds: float, **more: str) -> dict[str, str]:
        """Of a user. Threads that wait let others compute: jobs ask for more cores than there are.

        Python keeps what it compiled, for the many processes of a run.
        """
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {
            **kept,
            "PYTHONPATH": f"{self.path}:{HERE / 'slow'}",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "STEP_SECONDS": str(step_seconds),
            **more,
        }

    def start(
        self, *arguments: str, step_seconds: float = 0.0, env: Mapping[str, str] | None = None
    ) -> Controller:
        """Start Snakemake with these arguments in a process group of its own."""
        log = self.path / f"controller{len(list(self.path.glob('controller*.log')))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments],
                cwd=self.path,
                env=self.environment(step_seconds, **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(Controller(process, log))
        return self.started[-1]

    def clear_away(self) -> None:
        """End what a test that failed has left running."""
        for controller in self.started:
            if not controller.over:
                controller.send(signal.SIGKILL)
        listed = slurm("squeue", "--noheader", "--format=%A|%Z").splitlines()
        left = [line.split("|")[0] for line in listed if line.endswith(f"|{self.path}")]
        if left:
            slurm("scancel", *left)
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(self.path):  # a node that died has left it alone
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def on_slurm(self, *arguments: str, step_seconds: float = 0.5, **env: str) -> Controller:
        """Start `snakemake --profile slurm`, for stage 2 of `baseline` only."""
        return self.start(
            STAGE2, "--profile", "slurm", *arguments, step_seconds=step_seconds, env=env
        )

    @property
    def run(self) -> Path:
        return self.path / RUN

    @property
    def work(self) -> Path:
        """Where stage 2 keeps what it needs to resume."""
        return next(self.run.glob("stage2-*"), self.run / "stage2-not-begun")

    @property
    def log(self) -> str:
        """The log of stage 2, which all attempts append to."""
        path = self.path / LOG
        return path.read_text() if path.exists() else ""

    @property
    def steps(self) -> list[str]:
        """Who computed each step of stage 2: `job pid`."""
        path = self.path / "steps.txt"
        return path.read_text().splitlines() if path.exists() else []

    def trained(self, steps: int, *, of: str = "") -> None:
        """Wait until a job (or any) has computed so many steps."""
        until(
            lambda: len([s for s in self.steps if s.split()[0] == of or not of]) >= steps,
            f"step {steps} of job {of or 'any'}; the log of stage 2:\n{self.log}",
        )

    def hold(self) -> None:
        """Let no step of stage 2 end any more."""
        (self.path / "hold").touch()

    def release(self) -> None:
        (self.path / "hold").unlink()

    @property
    def attempts(self) -> list[dict[str, str]]:
        """Starts and ends of stage 2."""
        path = self.work / "attempts.jsonl"
        return [*map(json.loads, path.read_text().splitlines())] if path.exists() else []

    def outcome(self) -> dict[str, str]:
        """What must be bit-equal: weights and metrics of stage 2."""
        files = (self.run / "stage2.safetensors", self.work / "stage2.jsonl")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


POLL = "slurm-init-seconds-before-status-checks"


def interrupt(controller: Controller) -> None:
    """Ctrl-C, again if nothing happens: Snakemake drops the one that meets a log message."""
    for _ in range(5):
        controller.send(signal.SIGINT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if controller.over or "Terminating processes on user request" in controller.text:
                return
            time.sleep(0.1)
    raise AssertionError(f"Ctrl-C does nothing:\n{controller.text}")

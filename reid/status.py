"""Which jobs of an experiment are done, outdated, running or waiting, from its files alone.

Nothing is locked or started, so `reid status` is safe at any time, also while the workflow runs,
on any machine that sees the results.
"""

import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from reid.chain import NOT_RUN, Chain, difference
from reid.claim import foreign_files
from reid.config import STANDARD, Config
from reid.errors import UserError
from reid.files import read_end, read_json, read_json_lines
from reid.progress import duration
from reid.provenance import STAMP
from reid.steps import Job
from reid.train import attempts
from reid.train.lease import owner_of

State = Literal["done", "outdated", "running", "stopped", "failed", "unfinished", "waiting"]
"""`unfinished`: started and without a result; only its log can tell whether it still runs.
`outdated`: its result was made with other options, code or data than now."""

_COLORS: dict[State, int] = {
    "done": 32,
    "outdated": 33,
    "running": 36,
    "stopped": 33,
    "failed": 31,
    "unfinished": 33,
    "waiting": 90,
}


@dataclass(frozen=True)
class Status:
    """The state of a job and, in words, what is known of it."""

    job: Job
    log: Path
    state: State
    detail: str = ""


def run(config: Config, files: Sequence[Path]) -> None:
    """Print the status of the experiment of `config`, which was read from `files`."""
    colors = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    chain = Chain(config)
    for line in report(statuses(chain), resume_command(files), colors=colors):
        print(line)
    if earlier := earlier_runs(chain):
        print("\nKept of trainings with other options (`reid clean` removes them):")
        for folder, words in earlier:
            print(f"  {folder}: {words}")


def clean(config: Config, *, really: bool) -> None:
    """Print what trainings with other options left, and how much; with `really` remove it."""
    earlier = earlier_runs(Chain(config))
    for folder, words in earlier:
        if foreign := next(foreign_files(folder, _is_progress), None):
            raise UserError(f"{folder / foreign} is not of a training: move it away first")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{'removed' if really else 'would remove'} {folder} ({size:,} bytes): {words}")
        if really:
            shutil.rmtree(folder)
    if not earlier:
        print("nothing is left of trainings with other options")
    elif not really:
        print("nothing was removed: to remove it, add --yes")


def _is_progress(name: str) -> bool:
    """Whether a trainer writes a file of this name into its work folder."""
    return _PROGRESS.fullmatch(name) is not None


_PROGRESS = re.compile(
    r"(attempts|stage\d(\.speed)?)\.jsonl|(stamp|lease)\.json|tensorboard/.+"
    r"|checkpoints/stage\d/\d{5}-\d{7}\.pt"
)


def earlier_runs(chain: Chain) -> list[tuple[Path, str]]:
    """Work folders of the trainings whose stamp is not that of now, and what differs.

    Those that a trainer holds now are left out.
    """
    runs = []
    for job in chain.jobs:
        if job.step not in ("stage1", "stage2"):
            continue
        current = chain.work(job)
        for folder in sorted(current.parent.glob(f"{job.step}-*")):
            if folder == current or not (folder / "stamp.json").is_file() or owner_of(folder):
                continue
            if chain.is_pending(job):
                continue  # it may be what its job asks for, once its inputs are there
            ended = any(attempt["event"] == "done" for attempt in attempts.read(folder))
            words = "finished" if ended else "unfinished"
            try:
                made = read_json(folder / "stamp.json", STAMP)
                changes = difference(made, chain.stamp(job))
            except UserError:
                changes = "its stamp.json is damaged, so that nothing tells what differs"
            if changes is not None:
                runs.append((folder, f"{words}; {changes}"))
    return runs


def statuses(chain: Chain) -> list[Status]:
    """The status of every job, from its files."""

    def status(job: Job) -> Status:
        log, problem = chain.steps.log(job), chain.problem(job)
        if problem is None:
            return Status(job, log, "done")
        trains = job.step in ("stage1", "stage2")
        if trains and (training := _of_training(job, log, chain.work(job))):
            return training
        if problem != NOT_RUN:
            return Status(job, log, "outdated", problem)
        if log.exists():
            return Status(job, log, "unfinished", _last_line(log))
        return Status(job, log, "waiting")

    return [status(job) for job in chain.jobs]


def report(jobs: Sequence[Status], command: str, *, colors: bool = False) -> Iterator[str]:
    """Lines for people: a count by step, then what runs or failed, and the command to type."""

    def painted(text: str, state: State) -> str:
        return f"\033[{_COLORS[state]}m{text}\033[0m" if colors else text

    steps = list(dict.fromkeys(status.job.step for status in jobs))
    width = max(map(len, steps))
    for step in steps:
        states = [status.state for status in jobs if status.job.step == step]
        counts = [painted(f"{states.count(s)} {s}", s) for s in _COLORS if s in states]
        yield f"{step:{width}}  {len(states):4} jobs: {', '.join(counts)}"
    for status in jobs:
        if status.state not in ("done", "waiting"):
            yield ""
            yield f"{painted(status.state, status.state)}: {status.job.name}"
            if status.detail:
                yield f"  {status.detail}"
            if status.log.exists():  # a training started by hand has none
                yield f"  log: {status.log}"
    yield ""
    if all(status.state == "done" for status in jobs):
        yield "Everything is done."
    else:
        yield f"To resume (finished jobs are kept): {command}"


def resume_command(files: Sequence[Path]) -> str:
    """The workflow's command for configuration files as `reid` was given them."""
    further = [str(path) for path in files if path != STANDARD]
    return " ".join(["snakemake", *(["--configfile", *further] if further else [])])


def _of_training(job: Job, log: Path, folder: Path) -> Status | None:
    """The state of a stage that was started; None if it was not, or its output was deleted."""
    tries = attempts.read(folder)
    if not tries or tries[-1]["event"] == "done":
        return None
    starts = sum(attempt["event"] == "start" for attempt in tries)
    words = [f"attempt {starts}", *_position(folder / f"{job.step}.jsonl")]
    last = tries[-1]
    if last["event"] != "start":
        state: State = "stopped" if last["event"] == "stopped" else "failed"
        words.append(f"{last['time'].isoformat()}: {last.get('reason')}")
        return Status(job, log, state, ", ".join(words))
    owner = owner_of(folder)
    if owner is None:
        return Status(job, log, "failed", ", ".join([*words, "killed without an error message"]))
    heartbeat = f"last heartbeat {duration(owner.silence)} ago"
    return Status(job, log, "running", ", ".join([*words, str(owner), heartbeat]))


def _position(metrics: Path) -> Iterator[str]:
    for place in deque(read_json_lines(metrics, _PLACE, last_bytes=_END), maxlen=1):
        yield f"epoch {place['epoch']}, step {place['step']}"


class _Place(TypedDict):
    """What a line of a journal has that tells where training is."""

    epoch: int
    step: int


_PLACE = TypeAdapter(_Place)
_END = 2**16
"""Bytes read from the end of a log: more than any line that is written here."""


def _last_line(log: Path) -> str:
    lines = read_end(log, _END).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

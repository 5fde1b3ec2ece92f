"""Which jobs of an experiment are done, running, stopped or waiting, read from its files alone.

Nothing is locked or started, so `reid status` is safe at any time, also while the workflow runs,
on any machine that sees the results. `snakemake -n` shows which finished jobs must run again
because options, code or data changed; only a tuning with other options is shown here, because
`reid retrieve` refuses it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal

from reid.claim import MARK
from reid.config import STANDARD, Config
from reid.data.holdout import VALIDATION
from reid.files import read_end, read_json_lines
from reid.fingerprint import stage1_owners
from reid.paths import Results
from reid.progress import duration
from reid.retrieval.choice import outdated
from reid.train.lease import owner_of

State = Literal["done", "outdated", "running", "stopped", "failed", "unfinished", "waiting"]
"""`unfinished`: started and without a result; only its log can tell whether it still runs.
`outdated`: its result belongs to a tuning that was made with other options."""

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
class Job:
    """A job of the workflow: its step, its wildcards, its last output and its log."""

    step: str
    wildcards: tuple[str, ...]
    output: Path
    log: Path
    run: Path | None = None
    """Folder of a training, where a stage writes its attempts and metrics."""
    tuning: tuple[str, int] | None = None
    """Variant and seed of the tuning that the job writes or uses."""

    @property
    def name(self) -> str:
        """Step and wildcards, as `reid status` prints them."""
        return " ".join([self.step, *self.wildcards])


@dataclass(frozen=True)
class Status:
    """The state of a job and, in words, what is known of it."""

    job: Job
    state: State
    detail: str = ""


def run(config: Config, files: Sequence[Path]) -> None:
    """Print the status of the experiment of `config`, which was read from `files`."""
    colors = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in report(statuses(config), resume_command(files), colors=colors):
        print(line)


def jobs(config: Config) -> Iterator[Job]:
    """Every job of the workflow, in the order of the data."""
    results, seeds = Results.of(config.dataset.name), config.seeds
    protocols: tuple[str, ...] = config.dataset.protocols
    if config.demo:
        rendered = config.dataset.root / MARK
        yield Job("demo-data", (), rendered, results.log("demo_data"))
        for backbone in config.backbones.values():
            file = Path(backbone.weights)
            yield Job("demo-weights", (file.stem,), file, results.log("demo_weights", file.stem))
    yield Job("index", (), results.index(protocols[-1]), results.log("index"))
    owners = dict.fromkeys(stage1_owners(config).values())
    for number, names in ((1, list(owners)), (2, list(config.trainings))):
        for name, seed in product(names, seeds):
            place = (name, f"seed{seed}")
            log = results.log("train", *place, f"stage{number}")
            output = results.stage(name, seed, number)
            yield Job(f"train stage{number}", place, output, log, run=results.run(name, seed))
    tuned = [name for name, variant in config.variants.items() if variant.tuned]
    used = {variant.training for variant in config.variants.values()}
    held_out = {config.variants[name].training for name in tuned}
    for name, seed in product([name for name in config.trainings if name in used], seeds):
        for split in (*protocols, *[VALIDATION] * (name in held_out)):
            feature_place = (name, f"seed{seed}", split)
            log = results.log("features", *feature_place)
            yield Job("extract", feature_place, results.features(name, seed, split), log)
    for name, seed in product(tuned, seeds):
        place = (name, f"seed{seed}")
        log = results.log("tune", *place)
        yield Job("tune", place, results.tuned(name, seed), log, tuning=(name, seed))
    for name, seed, protocol in product(config.variants, seeds, protocols):
        row_place = (name, f"seed{seed}", protocol)
        tuning = (name, seed) if name in tuned else None
        output, log = results.retrieval(name, seed, protocol), results.log("retrieval", *row_place)
        yield Job("retrieve", row_place, output, log, tuning=tuning)
    yield Job("table", (), results.table("csv"), results.log("table"))
    yield Job("report", (), results.report(), results.log("report"))


def statuses(config: Config) -> list[Status]:
    """The status of every job, from its files."""

    @cache
    def reason(variant: str, seed: int) -> str | None:
        return outdated(config, variant, seed)

    def status(job: Job) -> Status:
        if job.output.exists():
            if job.tuning and (wrong := reason(*job.tuning)):
                return Status(job, "outdated", f"the tuning {wrong}")
            return Status(job, "done")
        if job.run is not None:
            return _of_training(job, job.run)
        if job.log.exists():
            return Status(job, "unfinished", _last_line(job.log))
        return Status(job, "waiting")

    return [status(job) for job in jobs(config)]


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
            if status.job.log.exists():  # a training started by hand has none
                yield f"  log: {status.job.log}"
    yield ""
    if all(status.state == "done" for status in jobs):
        yield "Everything is done; `snakemake -n` shows whether something has changed since."
    else:
        yield f"To resume (finished jobs are kept): {command}"


def resume_command(files: Sequence[Path]) -> str:
    """The workflow's command for configuration files as `reid` was given them."""
    further = [str(path) for path in files if path != STANDARD]
    return " ".join(["snakemake", *(["--configfile", *further] if further else [])])


def _of_training(job: Job, folder: Path) -> Status:
    stage = job.step.split()[-1]
    attempts = [
        attempt
        for attempt in read_json_lines(folder / "attempts.jsonl")
        if attempt.get("stage") == stage
    ]
    if not attempts and job.log.exists():
        return Status(job, "unfinished", _last_line(job.log))  # ended before it held its folder
    if not attempts or attempts[-1].get("event") == "done":  # its output was deleted
        return Status(job, "waiting")
    starts = sum(attempt.get("event") == "start" for attempt in attempts)
    words = [f"attempt {starts}", *_position(folder / f"{stage}.jsonl")]
    last = attempts[-1]
    if last.get("event") != "start":
        state: State = "stopped" if last.get("event") == "stopped" else "failed"
        words.append(f"{last.get('time')}: {last.get('reason')}")
        return Status(job, state, ", ".join(words))
    owner = owner_of(folder)
    if owner is None:
        return Status(job, "failed", ", ".join([*words, "killed without an error message"]))
    heartbeat = f"last heartbeat {duration(owner.silence)} ago"
    return Status(job, "running", ", ".join([*words, str(owner), heartbeat]))


def _position(metrics: Path) -> Iterator[str]:
    steps = [record for record in read_json_lines(metrics, last_bytes=_END) if "step" in record]
    if steps:
        yield f"epoch {steps[-1].get('epoch')}, step {steps[-1]['step']}"


_END = 2**16
"""Bytes read from the end of a log: more than any line that is written here."""


def _last_line(log: Path) -> str:
    lines = read_end(log, _END).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

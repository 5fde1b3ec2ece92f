"""What of an experiment is done, at work, stopped or still to come, read from its files alone.

Nothing is locked or started: it may be asked at any time, beside a running workflow, on any
machine that sees the results. Whether something done must run again because options, code or data
changed is for `snakemake -n` to say, but for a tuning of other options: `reid retrieve` refuses it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, TextIO

from reid.artifacts import Results
from reid.config import STANDARD, Config
from reid.files import read_json_lines
from reid.fingerprint import stage1_owners
from reid.holdout import VALIDATION
from reid.progress import duration
from reid.retrieval.choice import outdated
from reid.synthetic.marks import MANIFEST
from reid.train.lease import owner_of

State = Literal["done", "outdated", "running", "stopped", "failed", "unfinished", "waiting"]
"""`unfinished`: was begun and has no result; whether it still runs only its log can tell.
`outdated`: has a result, of a tuning that was made with other options."""

_COLOURS: dict[State, int] = {
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
    """A job of the workflow: its step, what tells it from others, its last output, its log."""

    step: str
    subject: str
    output: Path
    log: Path
    run: Path | None = None
    """The folder of a training, where a stage writes its attempts and its journal."""
    tuning: Callable[[], str | None] = lambda: None
    """What is wrong with the tuning that the job writes or uses."""

    @property
    def stage(self) -> str:
        """Name of the stage, of a training: `stage1`."""
        return self.step.split()[-1]


@dataclass(frozen=True)
class Status:
    """The state of a job and, in words, what is known of it."""

    job: Job
    state: State
    detail: str = ""


def run(config: Config, files: Sequence[Path]) -> None:
    """Print the status of the experiment of `config`, which was read from `files`."""
    found = [status(job) for job in jobs(config)]
    for line in report(found, resume_command(files), colors=_in_color(sys.stdout)):
        print(line)


def jobs(config: Config) -> Iterator[Job]:
    """Every job of the workflow, in the order of the data."""
    results = Results.of(config.dataset.name)
    if config.demo:
        rendered = config.dataset.root / MANIFEST
        yield Job("demo-data", "", rendered, results.log("demo_data"))
        for backbone in config.backbones.values():
            file = Path(backbone.weights)
            yield Job("demo-weights", file.stem, file, results.log("demo_weights", file.stem))
    yield Job("index", "", results.index(config.dataset.protocols[-1]), results.log("index"))
    owners = stage1_owners(config)
    place: tuple[str, ...]
    for number in (1, 2):
        for training in config.trainings if number == 2 else dict.fromkeys(owners.values()):
            for seed in config.seeds:
                place = (training, f"seed{seed}")
                yield Job(
                    f"train stage{number}",
                    " ".join(place),
                    results.stage(training, seed, number),
                    results.log("train", *place, f"stage{number}"),
                    run=results.run(training, seed),
                )
    tuned = {name: variant for name, variant in config.variants.items() if variant.tuned}
    used = {variant.training for variant in config.variants.values()}
    held_out = {variant.training for variant in tuned.values()}
    for training in (name for name in config.trainings if name in used):
        for seed in config.seeds:
            for split in (*config.dataset.protocols, *[VALIDATION] * (training in held_out)):
                place = (training, f"seed{seed}", split)
                output = results.features(training, seed, split)
                yield Job("extract", " ".join(place), output, results.log("features", *place))

    @cache
    def untuned(name: str, seed: int) -> str | None:
        return outdated(config, name, seed) if name in tuned else None

    for name in tuned:
        for seed in config.seeds:
            place, wrong = (name, f"seed{seed}"), partial(untuned, name, seed)
            output = results.tuned(name, seed)
            yield Job("tune", " ".join(place), output, results.log("tune", *place), tuning=wrong)
    for name in config.variants:
        for seed in config.seeds:
            wrong = partial(untuned, name, seed)
            for protocol in config.dataset.protocols:
                place = (name, f"seed{seed}", protocol)
                output = results.retrieval(name, seed, protocol)
                log = results.log("retrieval", *place)
                yield Job("retrieve", " ".join(place), output, log, tuning=wrong)
    yield Job("table", "", results.table("csv"), results.log("table"))
    yield Job("report", "", results.report(), results.log("report"))


def status(job: Job) -> Status:
    """What the files say of a job."""
    if job.output.exists():
        reason = job.tuning()
        return Status(job, "outdated", f"the tuning {reason}") if reason else Status(job, "done")
    if job.run is not None:
        return _of_training(job, job.run)
    if job.log.exists():
        return Status(job, "unfinished", _last_line(job.log))
    return Status(job, "waiting")


def report(found: Sequence[Status], command: str, *, colors: bool = False) -> Iterator[str]:
    """Lines for people: a count by step, then what is at work or broke, and what to type."""
    steps = list(dict.fromkeys(each.job.step for each in found))
    width = max(map(len, steps))
    for step in steps:
        states = [each.state for each in found if each.job.step == step]
        counts = (
            _colored(f"{states.count(name)} {name}", name, colors)
            for name in _COLOURS
            if name in states
        )
        yield f"{step:{width}}  {len(states):4} jobs: {', '.join(counts)}"
    for each in found:
        if each.state in ("done", "waiting"):
            continue
        yield ""
        name = f"{each.job.step} {each.job.subject}".rstrip()
        yield f"{_colored(each.state, each.state, colors)}: {name}"
        if each.detail:
            yield f"  {each.detail}"
        if each.job.log.exists():  # started by hand there is none
            yield f"  log: {each.job.log}"
    yield ""
    if all(each.state == "done" for each in found):
        yield "All is done; `snakemake -n` says whether something changed since."
    else:
        yield f"To go on (what is done is kept): {command}"


def resume_command(files: Sequence[Path]) -> str:
    """The workflow's command for configuration files as `reid` was given them."""
    further = [str(path) for path in files if path != STANDARD]
    return " ".join(["snakemake", *(["--configfile", *further] if further else [])])


def _of_training(job: Job, folder: Path) -> Status:
    attempts = [
        each for each in read_json_lines(folder / "attempts.jsonl") if each["stage"] == job.stage
    ]
    if not attempts and job.log.exists():
        return Status(job, "unfinished", _last_line(job.log))  # ended before it held its folder
    if not attempts or attempts[-1]["event"] == "done":  # its result was taken away
        return Status(job, "waiting")
    last, starts = attempts[-1], sum(each["event"] == "start" for each in attempts)
    words = [f"attempt {starts}", *_position(folder / f"{job.stage}.jsonl")]
    if last["event"] != "start":
        state: State = "stopped" if last["event"] == "stopped" else "failed"
        return Status(job, state, ", ".join([*words, f"{last['time']}: {last['reason']}"]))
    owner = owner_of(folder)
    if owner is None:
        return Status(job, "failed", ", ".join([*words, "killed: it left no word"]))
    heartbeat = f"last heartbeat {duration(owner.silence)} ago"
    return Status(job, "running", ", ".join([*words, str(owner), heartbeat]))


def _position(journal: Path) -> Iterator[str]:
    whole = _end(journal).rpartition("\n")[0] if journal.exists() else ""
    if whole:
        record = json.loads(whole.splitlines()[-1])
        yield f"epoch {record['epoch']}, step {record['step']}"


def _last_line(log: Path) -> str:
    lines = _end(log).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _end(path: Path) -> str:
    """The last 64 KiB, more than any line that is written here."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2**16))
        return file.read().decode("utf-8", errors="replace")


def _in_color(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def _colored(text: str, state: State, colors: bool) -> str:
    return f"\033[{_COLOURS[state]}m{text}\033[0m" if colors else text

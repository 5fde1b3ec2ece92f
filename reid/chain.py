"""The chain from the data to a number: what each job depends on, by content, and what holds.

The stamp of a job says what its outputs depend on: its options, the code it runs, and the digests
of its inputs. A manifest beside the outputs says which stamp they were made with. Outputs whose
manifest has another stamp than the job has now are outdated: Snakemake makes them again, a verb
that would read them refuses, and the table shows no number of them.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from reid import provenance
from reid.config import Config
from reid.content import MISSING, Contents
from reid.errors import UserError
from reid.files import sha256_of_json, write_text
from reid.paths import Results
from reid.provenance import Manifest
from reid.sources import modules_behind
from reid.steps import ENTRIES, Job, Steps

Stamp = dict[str, Any]

IMPORT = "import_checkpoint"
"""Step in the stamp of final weights that were not trained here."""


def name_of(stamp: Mapping[str, Any]) -> str:
    """A short name of a stamp: equal stamps have one name."""
    return sha256_of_json(stamp)[:12]


def demand_this_version(results: Results) -> None:
    """Raise UserError where results are of a version that recorded no stamps; none is changed."""
    for run in sorted(results.root.glob("train/*/seed*")):
        if (run / "manifest.json").exists() or (run / "checkpoints").exists():
            raise UserError(
                f"{run} was made by an earlier version, which did not record by content what made "
                f"it: keep it under another name (mv {results.root} {results.root}-before), then "
                "run this again; nothing was changed"
            )


class Chain:
    """The jobs of an experiment and the state of their outputs, as they are on disk now.

    Everything is read once: make a new one after outputs have changed.
    """

    def __init__(self, config: Config) -> None:
        self.steps, self.results = Steps(config), Results.of(config)
        reading = name_of(modules_behind("reid.content"))
        self.contents = Contents(self.results.stamps() / f"digests-{reading}.json")
        self._stamps: dict[Path, Stamp] = {}
        self._problems: dict[Path, str | None] = {}
        self._digests: dict[Path, str] = {}

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job of the workflow, in the order of the data."""
        return list(self.steps)

    @cached_property
    def makers(self) -> Mapping[Path, Job]:
        """The job that makes a file."""
        return {path: job for job in self.jobs for path in job.outputs}

    def stamp(self, job: Job) -> Stamp:
        """What the outputs of a job depend on now, JSON-able."""
        if job.output not in self._stamps:
            self._stamps[job.output] = {
                "step": job.step,
                "options": job.options,
                "code": modules_behind(ENTRIES[job.step]),
                "inputs": {role: self.digest(path) for role, path in job.inputs.items()},
            }
        return self._stamps[job.output]

    def digest(self, path: Path) -> str:
        """Of an input by its content; of one that must be made again, by what will make it."""
        if path not in self._digests:
            job = self.makers.get(path)
            self._digests[path] = (
                self.contents.digest(path) if job is None else self._made(job, path)
            )
        return self._digests[path]

    def is_pending(self, job: Job) -> bool:
        """Whether an input of a job must be made first, so that its stamp is not yet known."""
        return any(digest.startswith(PENDING) for digest in self.stamp(job)["inputs"].values())

    def problem(self, job: Job) -> str | None:
        """Why the outputs of a job do not hold, in words for people; None if they do."""
        if job.output not in self._problems:
            self._problems[job.output] = self._problem(job)
        return self._problems[job.output]

    def ready(self, job: Job) -> Stamp:
        """The stamp of a job whose inputs are there, hold, and are byte for byte what was made.

        Raises UserError naming the input, what is wrong with it and what to run.
        """
        demand_this_version(self.results)
        for path in job.inputs.values():
            maker = self.makers.get(path)
            if maker is None:
                continue  # a file of the user, which the job itself reads or refuses
            if cause := self._cause(maker):
                problem = str(self.problem(cause))
                words = " does not exist" if problem == NOT_RUN else f" does not hold ({problem})"
                raise UserError(
                    f"{cause.output}{words}: run `reid {cause.command}`, or `snakemake`"
                )
        stamp = self.stamp(job)
        self.contents.save()
        return stamp

    @contextmanager
    def record(
        self,
        job: Job,
        *,
        device: str = "cpu",
        precision: str | None = None,
        with_gaps: bool = False,
    ) -> Iterator[None]:
        """Around the work of a job: check its inputs first, write its manifest at the end.

        device, precision: see `provenance.facts`. with_gaps: inputs may be missing or outdated.
        Raises UserError as `ready`.
        """
        stamp = self.stamp(job) if with_gaps else self.ready(job)
        self.contents.save()
        made = provenance.facts(device, precision)
        yield
        self.write_manifest(job, stamp, made)

    def write_manifest(self, job: Job, stamp: Stamp, made: Mapping[str, Any]) -> None:
        """Write the manifest of a job whose outputs are there."""
        paths = {role: path.as_posix() for role, path in job.inputs.items()}
        provenance.write(
            job.manifest, stamp=stamp, outputs=job.outputs, made={**made, "inputs": paths}
        )

    def work(self, job: Job) -> Path:
        """Where the trainer of a stage keeps, or kept, what it needs to resume."""
        training, seed = job.place
        made = self.history(job)
        trained = made and made.stamp["step"] == job.step
        stamp = name_of(made.stamp if made and trained else self.stamp(job))
        return self.results.work(training, int(seed.removeprefix("seed")), job.step, stamp)

    def history(self, job: Job) -> Manifest | None:
        """The manifest of outputs that hold, or would if they were not gone: after a purge."""
        pending = self.digest(job.output).startswith(PENDING)
        return None if pending else provenance.read(job.manifest)

    def why(self, job: Job) -> str | None:
        """Why the outputs of a job do not hold, by the first job behind them that has changed."""
        problem = self.problem(job)
        cause = None if problem in (None, NOT_RUN) else self._cause(job, of_a_change=True)
        return problem if cause in (None, job) else f"{cause.name}: {self.problem(cause)}"

    def write_stamps(self) -> None:
        """Write the stamp of every job, for Snakemake, which compares times.

        A stamp is newer than outputs that do not hold. Outputs that hold are made newer than their
        stamp and inputs, however all of these came to be: by hand, by a copy. None keeps a time in
        the future: Snakemake deletes what a job made if an input is newer.
        """
        now = time.time_ns()
        for job in (*self.jobs, *self.steps.submissions()):
            path, stamp, problem = self._stamp_file(job), self.stamp(job), self.problem(job)
            made = [file for file in (*job.outputs, *self.steps.traces(job)) if file.exists()]
            for file in made:
                if _time(file) > now:
                    _set_time(file, now)
            if made and problem:
                # Snakemake ignores the time of a file whose content it remembers from the last run.
                stamp = {**stamp, "must run again": problem, "seen": now}
            text = json.dumps(stamp, indent=1, sort_keys=True) + "\n"
            if not path.exists() or path.read_bytes() != text.encode() or _time(path) > now:
                write_text(path, text)
                _set_time(path, time.time_ns())
            if made and not problem:
                files = [file for file in (path, *job.inputs.values()) if file.is_file()]
                if max(map(_time, files)) > min(map(_time, made)):
                    for output in made:
                        _set_time(output, time.time_ns())
        self.contents.save()

    def _stamp_file(self, job: Job) -> Path:
        return self.results.stamp(job.step, *job.place)

    def _cause(self, job: Job, *, of_a_change: bool = False) -> Job | None:
        """The first job behind a job, or itself, whose outputs do not hold.

        of_a_change: outputs that a purge removed have changed nothing.
        """
        if self.history(job) if of_a_change else self.problem(job) is None:
            return None
        before = (self.makers.get(path) for path in job.inputs.values())
        makers = (maker for maker in before if maker is not None)
        causes = (self._cause(maker, of_a_change=of_a_change) for maker in makers)
        return next((cause for cause in causes if cause is not None), job)

    def _made(self, job: Job, path: Path) -> str:
        manifest = provenance.read(job.manifest)
        if manifest is None or self._stale(job, manifest) or not self._fits(manifest, path):
            return f"{PENDING}{name_of(self.stamp(job))}"
        digest: str = manifest.outputs[path.name]["sha256"]
        return digest

    def _fits(self, manifest: Manifest, path: Path) -> bool:
        """Whether an output is what its manifest describes, or is gone."""
        known = manifest.outputs.get(path.name)
        return known is not None and self.contents.digest(path) in (known["sha256"], MISSING)

    def _problem(self, job: Job) -> str | None:
        missing = [path for path in job.outputs if not path.exists()]
        if missing:
            return NOT_RUN if len(missing) == len(job.outputs) else f"{missing[0]} is missing"
        manifest = provenance.read(job.manifest)
        if manifest is None:
            damaged = f"{job.manifest} is damaged or {UNKNOWN}"
            return damaged if job.manifest.exists() else UNKNOWN
        wrong = [path for path in job.outputs if not self._fits(manifest, path)]
        if wrong:
            return f"{wrong[0]} is not what its manifest describes"
        return self._stale(job, manifest)

    def _stale(self, job: Job, manifest: Manifest) -> str | None:
        """What has changed since the outputs of a manifest were made; None if nothing has."""
        now, made = self.stamp(job), manifest.stamp
        if made.get("step") == IMPORT:
            now, made = _network(now), _network(made)
        return difference(made, now)


PENDING = "to be made by "
NOT_RUN = "not run"
UNKNOWN = "of an earlier version, or made by hand: nothing tells what made it"


def difference(made: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between two stamps, in words: options first, then code, then inputs.

    None if nothing does. An input that is gone now contradicts nothing.
    """
    words = list(changes(made.get("options", {}), now["options"]))
    before, after = made.get("code", {}), now["code"]
    modules = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if modules:
        rest = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
        words.append(f"code of {', '.join(modules[:3])}{rest}")
    before, after = made.get("inputs", {}), now["inputs"]
    for role in sorted({*before, *after}):
        old, new = before.get(role), after.get(role)
        if old != new and new != MISSING:
            words.append(f"{role} {_input_change(old, new)}")
    return "; ".join(words) or None


def _input_change(old: str | None, new: str | None) -> str:
    if new is None:
        return "is no input any more"
    if old is None:
        return "is a new input"
    return "must be made again" if new.startswith(PENDING) else "changed"


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two nested mappings, as `key: old -> new`."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {_brief(before)} -> {_brief(after)}"


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _network(stamp: Mapping[str, Any]) -> Stamp:
    """Of a stamp what an imported network must share with a trained one: not how it was trained."""
    shared = ("seed", "backbone", "model", "clip", "metadata")
    options = {name: stamp["options"].get(name) for name in shared}
    inputs = {name: digest for name, digest in stamp["inputs"].items() if name == "weights"}
    return {"options": options, "code": {}, "inputs": inputs}


def _time(path: Path) -> int:
    """Time of a file as Snakemake takes it, ns: of a link, the later of its own and its file's."""
    return max(path.stat().st_mtime_ns, path.lstat().st_mtime_ns)


def _set_time(path: Path, time_ns: int) -> None:
    """By this machine's clock: that of the file system may be another, or a little behind."""
    os.utime(path, ns=(time_ns, time_ns))

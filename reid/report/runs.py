"""What is known of the trainings: their curves, attempts, speed, hours, and what made them."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reid.artifacts import Results
from reid.config import Config
from reid.errors import UserError
from reid.files import read_json, read_json_lines
from reid.fingerprint import run_settings, stage1_owners
from reid.report.cells import NOT_RUN

MANIFEST = {"device", "finished", "fingerprint", "git", "gpu", "host", "inputs", "outputs",
            "packages", "precision", "python"}  # fmt: skip
"""Facts of a manifest that are shown."""


@dataclass(frozen=True)
class Curve:
    """Means over the steps of each epoch."""

    epochs: list[int]
    loss: list[float]
    accuracy: list[float]
    """Of the identity classifiers, shares; empty in stage 1."""
    planned: int

    @property
    def complete(self) -> bool:
        """Whether every planned epoch is there."""
        return len(self.epochs) == self.planned


@dataclass(frozen=True)
class Run:
    """One training with one seed."""

    training: str
    seed: int
    gap: str | None
    """Why nothing is shown of it."""
    manifest: Mapping[str, Any]
    attempts: tuple[Mapping[str, Any], ...]
    """Starts and ends of both stages, in order."""
    curves: Mapping[int, Curve]
    """By stage; a shared stage 1 is shown with the training that ran it."""
    frames_per_second: float | None
    """Of stage 2, median over its epochs."""
    peak_memory: int | None
    """Bytes of GPU memory in stage 2."""

    @property
    def starts(self) -> int:
        """How often a trainer was started."""
        return sum(attempt["event"] == "start" for attempt in self.attempts)

    @property
    def jobs(self) -> list[str]:
        """Slurm's jobs, in order."""
        return list(dict.fromkeys(a["job"] for a in self.attempts if a.get("job")))

    @property
    def trained_seconds(self) -> float:
        """Time between starts and ends, of all attempts whose end was written."""
        total, began = 0.0, None
        for attempt in self.attempts:
            now = datetime.fromisoformat(attempt["time"])
            if attempt["event"] == "start":
                began = now
            elif began is not None:
                total += (now - began).total_seconds()
                began = None
        return total


def runs(config: Config) -> list[Run]:
    """Every training with every seed."""
    return [_run(config, name, seed) for name in config.trainings for seed in config.seeds]


def _run(config: Config, name: str, seed: int) -> Run:
    results = Results.of(config.dataset.name)
    folder, path = results.run(name, seed), results.manifest(name, seed)
    nothing = Run(name, seed, NOT_RUN, {}, (), {}, None, None)
    if not path.exists():
        return nothing
    try:
        manifest = read_json(path)
        outdated = manifest["options"] != run_settings(config, name)
        if missing := MANIFEST - manifest.keys():
            raise KeyError(*missing)
    except (UserError, KeyError, TypeError):
        gap = f"{path} is damaged: train again"
        return Run(name, seed, gap, {}, (), {}, None, None)
    if outdated:
        gap = "stale: the training has other options now"
        return Run(name, seed, gap, {}, (), {}, None, None)
    options = config.trainings[name]
    curves = {2: _curve(folder / "stage2.jsonl", options.stage2.epochs)}
    if stage1_owners(config)[name] == name:
        curves[1] = _curve(folder / "stage1.jsonl", options.stage1.epochs)
    speeds = list(read_json_lines(folder / "stage2.speed.jsonl"))[-max(1, options.stage2.epochs) :]
    rates = [speed["frames_per_second"] for speed in speeds]
    peaks = [speed["peak_memory_bytes"] for speed in speeds if "peak_memory_bytes" in speed]
    return Run(
        training=name,
        seed=seed,
        gap=None,
        manifest=manifest,
        attempts=tuple(read_json_lines(folder / "attempts.jsonl")),
        curves={stage: curve for stage, curve in curves.items() if curve is not None},
        frames_per_second=statistics.median(rates) if rates else None,
        peak_memory=max(peaks, default=None),
    )


def seconds_of(path: Path) -> float | None:
    """Wall time of a job by Snakemake's benchmark; None without one."""
    if not path.exists():
        return None
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    place = header.split("\t").index("s")
    return sum(float(row.split("\t")[place]) for row in rows)


def _curve(path: Path, planned: int) -> Curve | None:
    steps: dict[int, list[dict[str, Any]]] = {}
    for record in read_json_lines(path):
        if record.get("loss") is not None:
            steps.setdefault(record["epoch"], []).append(record)
    if not steps:
        return None
    epochs = sorted(steps)

    def means(key: str) -> list[float]:
        return [statistics.fmean(step[key] for step in steps[epoch]) for epoch in epochs]

    accuracy = means("accuracy") if "accuracy" in steps[epochs[0]][0] else []
    return Curve(epochs, means("loss"), accuracy, planned)

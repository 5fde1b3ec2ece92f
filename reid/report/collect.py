"""Everything that the table and the page show, read once: measurements and trainings.

A measurement is one variant with one seed on one protocol. Where its file is missing or damaged, or
its chain does not hold, there is a gap with a reason, never a number.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NotRequired

import pandas as pd
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from reid.chain import NOT_RUN, Chain
from reid.config import Config, Variant
from reid.errors import UserError
from reid.files import read_json, read_json_lines
from reid.provenance import Manifest
from reid.steps import Job
from reid.train import attempts
from reid.train.attempts import Attempt


class _Step(TypedDict):
    """A line of a journal that has a loss."""

    epoch: int
    loss: float
    accuracy: NotRequired[float]


class _Speed(TypedDict):
    """A line for each epoch of a training."""

    frames_per_second: float
    peak_memory_bytes: NotRequired[int]


_STEP, _SPEED = TypeAdapter(_Step), TypeAdapter(_Speed)


@dataclass(frozen=True)
class Measurement:
    """One retrieval, as `reid retrieve` wrote it."""

    variant: str
    label: str
    training: str
    seed: int
    protocol: str
    content: Mapping[str, Any]
    """The file, and `scores` as shares: mean_ap, trapezoid, rank1, rank5, rank10, chance,
    without_rerank; low and high, the 95 % bootstrap interval of mAP over query identities, where
    there are two identities; queries that have a positive."""
    manifest: Path
    """Where its history begins (reid.provenance)."""


@dataclass(frozen=True)
class Spread:
    """Mean over seeds in per cent and sample standard deviation; NaN with too few seeds."""

    mean: float
    deviation: float
    seeds: int


@dataclass(frozen=True)
class AblationRow:
    """A variant and what was measured of it, by (seed, protocol)."""

    name: str
    variant: Variant
    measurements: Mapping[tuple[int, str], Measurement]
    gaps: Mapping[tuple[int, str], str]
    """Why there is no measurement."""
    seeds: tuple[int, ...]
    protocols: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the row, on one line and encodable."""
        return one_line(self.variant.label)

    def spread(self, place: str, score: str = "mean_ap") -> Spread:
        """A score over the seeds that have it.

        place: a protocol; `macro`, the mean over protocols (Eq. 5); or `micro`, the mean over the
        queries of all protocols. Both means are over the seeds that have every protocol.
        """
        values = pd.Series([self._score(seed, place, score) for seed in self.seeds])
        return Spread(values.mean(), values.std(), values.count())

    def reasons(self) -> dict[str, list[str]]:
        """Reason -> the gaps it explains ("A2G", or "A2G seed 2" with several seeds)."""
        places: dict[str, list[str]] = {}
        for (seed, protocol), reason in self.gaps.items():
            place = f"{protocol} seed {seed}" if len(self.seeds) > 1 else protocol
            places.setdefault(reason, []).append(place)
        return places

    def first(self) -> dict[str, Measurement]:
        """By protocol, the measurement of the first seed that has one."""
        first: dict[str, Measurement] = {}
        for (_, protocol), measurement in self.measurements.items():
            first.setdefault(protocol, measurement)
        return first

    def _score(self, seed: int, place: str, score: str) -> float:
        names = (place,) if place in self.protocols else self.protocols
        parts = [part for name in names if (part := self.measurements.get((seed, name)))]
        scores = [part.content["scores"] for part in parts]
        if len(parts) < len(names) or any(score not in values for values in scores):
            return math.nan
        weights = [values["queries"] if place == "micro" else 1 for values in scores]
        return 100 * statistics.fmean([values[score] for values in scores], weights)


@dataclass(frozen=True)
class TrainingRecord:
    """One training with one seed."""

    training: str
    seed: int
    gap: str | None = None
    """Why nothing is shown of it."""
    manifest: Manifest | None = None
    starts: int = 0
    """How often a trainer was started, in both stages."""
    seconds: float = 0.0
    """Time between starts and ends, of all attempts whose end was written."""
    jobs: tuple[str, ...] = ()
    """Slurm's jobs, in order."""
    curves: Mapping[int, pd.DataFrame] = field(default_factory=dict)
    """Stage -> means over the steps of each epoch: training, seed, epoch, loss, and accuracy of the
    identity classifiers in stage 2. A shared stage 1 is shown with the training that ran it."""
    frames_per_second: float | None = None
    """Of stage 2, median over its epochs."""
    peak_memory: int | None = None
    """Bytes of GPU memory in stage 2."""


def one_line(text: str) -> str:
    """A text without line breaks, and with "?" for what UTF-8 cannot encode."""
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")


def gap(chain: Chain, job: Job) -> str | None:
    """Why nothing is shown of a job; None if its outputs hold."""
    problem = chain.why(job)
    return f"outdated: {problem}" if problem not in (None, NOT_RUN) else problem


def ablation_rows(config: Config) -> list[AblationRow]:
    """All variants of the configuration with what was measured of them."""
    chain = Chain(config)

    def measurement(name: str, variant: Variant, seed: int, protocol: str) -> Measurement | str:
        job = chain.steps.retrieve(name, seed, protocol)
        if reason := gap(chain, job):
            return reason
        try:
            content: Any = read_json(job.output)
            content["scores"], label = _scores(content), one_line(variant.label)
            return Measurement(name, label, variant.training, seed, protocol, content, job.manifest)
        except UserError:
            return f"unreadable: run `reid {job.command}` again"

    rows = []
    for name, variant in config.variants.items():
        outcomes = {
            (seed, protocol): measurement(name, variant, seed, protocol)
            for seed in config.seeds
            for protocol in config.dataset.protocols
        }
        rows.append(
            AblationRow(
                name,
                variant,
                {key: each for key, each in outcomes.items() if isinstance(each, Measurement)},
                {key: each for key, each in outcomes.items() if isinstance(each, str)},
                config.seeds,
                config.dataset.protocols,
            )
        )
    return rows


def measured(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Rows of the ablation, without references, that have any number."""
    return [row for row in rows if row.measurements and not row.variant.reference]


def detailed(rows: Sequence[AblationRow], name: str | None) -> AblationRow | None:
    """The row shown in detail: the one named, else the last of the ablation that was measured.

    None where it has no number.
    """
    if name is None:
        return next(reversed(measured(rows)), None)
    return next((row for row in rows if row.name == name and row.measurements), None)


def one_a_training(rows: Sequence[AblationRow], most: int) -> list[AblationRow]:
    """The last measured row of each training, at most the first and the last `most` - 1."""
    last = list({row.variant.training: row for row in measured(rows)}.values())
    return last if len(last) <= most else [last[0], *last[len(last) - most + 1 :]]


def training_records(config: Config) -> list[TrainingRecord]:
    """Every training with every seed."""
    chain = Chain(config)
    pairs = product(config.trainings, config.seeds)
    return [_record(chain, training, seed) for training, seed in pairs]


def _scores(content: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a measurement by the names that the table has for them."""
    low, high = content["intervals"]["mAP_interval"] or (None, None)
    scores = {
        "mean_ap": content["mAP"],
        "trapezoid": content["mAP_trapezoid"],
        **{f"rank{k}": content["cmc"][str(k)] for k in (1, 5, 10)},
        "chance": content["chance_mAP"],
        "without_rerank": content["mAP_without_rerank"],
        "queries": content["queries"] - content["queries_without_positive"],
    }
    ends = {} if low is None else {"low": low, "high": high}
    return {name: float(value) for name, value in {**scores, **ends}.items()}


def _record(chain: Chain, training: str, seed: int) -> TrainingRecord:
    second = chain.steps.stage2(training, seed)
    if (manifest := chain.history(second)) is None:
        return TrainingRecord(training, seed, gap(chain, second))
    stages = (1, 2) if chain.steps.stage1_owners[training] == training else (2,)
    folders = {stage: chain.work(chain.steps.stage(training, seed, stage)) for stage in stages}
    curves = {s: _curve(path / f"stage{s}.jsonl", training, seed) for s, path in folders.items()}
    speeds = list(read_json_lines(folders[2] / "stage2.speed.jsonl", _SPEED))
    rates = [speed["frames_per_second"] for speed in speeds]
    tries = [attempt for path in folders.values() for attempt in attempts.read(path)]
    slurm = [each["made"]["slurm"] or {} for each in tries if "made" in each]
    return TrainingRecord(
        training=training,
        seed=seed,
        manifest=manifest,
        starts=sum(each["event"] == "start" for each in tries),
        seconds=attempted_seconds(tries),
        jobs=tuple(dict.fromkeys(job["job_id"] for job in slurm if "job_id" in job)),
        curves={stage: curve for stage, curve in curves.items() if not curve.empty},
        frames_per_second=statistics.median(rates) if rates else None,
        peak_memory=max((s.get("peak_memory_bytes", 0) for s in speeds), default=0) or None,
    )


def attempted_seconds(tries: Sequence[Attempt]) -> float:
    """Time from each start to the next end."""
    seconds, began = 0.0, None
    for each in tries:
        if each["event"] == "start":
            began = each["time"]
        elif began is not None:
            seconds += (each["time"] - began).total_seconds()
            began = None
    return seconds


def _curve(path: Path, training: str, seed: int) -> pd.DataFrame:
    steps = pd.DataFrame([*read_json_lines(path, _STEP)])
    if steps.empty:
        return steps
    values = [value for value in ("accuracy", "loss") if value in steps]
    curve = steps.groupby("epoch")[values].mean().reset_index()
    return curve.assign(training=training, seed=seed)[["training", "seed", "epoch", *values]]

"""What a training costs: parameters, multiplications, speed, hours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reid.artifacts import Results
from reid.config import Clip, Config, Model
from reid.data.layouts import cameras_of
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features.extract import flips
from reid.fingerprint import stage1_owners
from reid.holdout import VALIDATION, part
from reid.model import network
from reid.model.vit import Geometry
from reid.model.weights import read_geometry
from reid.report.runs import Run, seconds_of
from reid.train.common import identities_of
from reid.train.params import stage_groups


@dataclass(frozen=True)
class Cost:
    """One training, of its first seed; None: not known."""

    training: str
    backbone: str
    trained_stage1: int | None
    trained_stage2: int | None
    parameters: int | None
    """Of the visual network, with what is frozen and the heads."""
    macs_per_frame: float | None
    train_speed: float | None
    """Frames a second in stage 2."""
    extract_speed: float | None
    """Frames a second in extraction, start-up and both views included."""
    peak_memory: int | None
    gap: str | None


@dataclass(frozen=True)
class StageHours:
    """Wall time of the jobs of one step, from Snakemake's benchmarks."""

    step: str
    timed: int
    jobs: int
    hours: float


def costs(config: Config, runs: Sequence[Run]) -> list[Cost]:
    """One entry for each training; what needs weights or an index that are not there is None."""
    first = {run.training: run for run in reversed(runs)}
    tracklets = _tracklets(config)
    return [_cost(config, name, first[name], tracklets) for name in config.trainings]


def _cost(config: Config, name: str, run: Run, tracklets: Mapping[str, int]) -> Cost:
    training = config.trainings[name]
    gap = run.gap
    trained1 = trained2 = parameters = macs = None
    try:
        backbone = config.backbones[training.backbone]
        if backbone.file is None:
            raise UserError(
                f"{backbone.weights} is no file: its sizes are not fetched for a report"
            )
        geometry = read_geometry(backbone.weights)
        index = Results.of(config.dataset.name).index("train")
        people = identities_of(part(read_split(index), training.validation, "train"))
        cameras = cameras_of(config.dataset.layout, index)
        groups = stage_groups(training, geometry, len(people), cameras)
        trained1, trained2 = (
            sum(group.size for group in groups[stage] if group.lr) if epochs else 0
            for stage, epochs in (
                ("stage 1", training.stage1.epochs),
                ("stage 2", training.stage2.epochs),
            )
        )
        parameters = sum(group.size for group in groups["stage 2"])
        macs = macs_per_frame(training.model, training.clip, geometry)
    except UserError as error:
        gap = gap or str(error)
    return Cost(
        training=name,
        backbone=training.backbone,
        trained_stage1=trained1,
        trained_stage2=trained2,
        parameters=parameters,
        macs_per_frame=macs,
        train_speed=run.frames_per_second,
        extract_speed=None if run.gap else _extract_speed(config, name, run.seed, tracklets),
        peak_memory=run.peak_memory,
        gap=gap,
    )


@cache
def macs_per_frame(model: Model, clip: Clip, geometry: Geometry) -> float:
    """Multiply-adds of a frame in extraction without mirroring, counted by running the network.

    On tensors without numbers, with attention as plain products, which the counter knows.
    """
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        size = (clip.height, clip.width)
        built = network.build(
            model, num_classes=1, num_cameras=1, weights=geometry, image_size=size
        ).eval()
        inputs = (
            torch.empty(1, clip.frames, 3, *size),
            torch.zeros(1, dtype=torch.long),
            torch.empty(1, 3),
            torch.ones(1, clip.frames),
        )
        with FlopCounterMode(display=False) as counter:
            built.embed(*inputs)
    operations: int = counter.get_total_flops()
    return operations / 2 / clip.frames


def _extract_speed(
    config: Config, name: str, seed: int, tracklets: Mapping[str, int]
) -> float | None:
    results = Results.of(config.dataset.name)
    views = 2 if flips(config, name) else 1
    frames, seconds = 0, 0.0
    for protocol, count in tracklets.items():
        took = seconds_of(results.benchmark("features", name, f"seed{seed}", protocol))
        if took is not None:
            frames += count * config.trainings[name].clip.frames * views
            seconds += took
    return frames / seconds if seconds else None


def _tracklets(config: Config) -> dict[str, int]:
    """Tracklets of each protocol whose index can be read."""
    found: dict[str, int] = {}
    for protocol in config.dataset.protocols:
        with suppress(UserError):
            found[protocol] = len(read_split(Results.of(config.dataset.name).index(protocol)))
    return found


def stage_hours(config: Config) -> list[StageHours]:
    """Hours by step over all jobs of the configuration, and of how many jobs they are known."""
    results = Results.of(config.dataset.name)
    found = []
    for step, jobs in _jobs(config):
        times = [seconds_of(results.benchmark(*job)) for job in jobs]
        known = [time for time in times if time is not None]
        found.append(StageHours(step, len(known), len(jobs), sum(known) / 3600))
    return [each for each in found if each.jobs]


def _jobs(config: Config) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Steps with the places of the benchmarks of their jobs."""
    seeds = [f"seed{seed}" for seed in config.seeds]
    protocols = config.dataset.protocols
    owners = sorted(set(stage1_owners(config).values()))
    tuned = [(name, v.training) for name, v in config.variants.items() if v.tuned]
    held_out = sorted({training for _, training in tuned})
    yield "index", [("index",)]
    yield "stage 1", [("train", name, seed, "stage1") for name in owners for seed in seeds]
    yield "stage 2", [("train", n, seed, "stage2") for n in config.trainings for seed in seeds]
    yield (
        "extract",
        [("features", n, s, p) for n in config.trainings for s in seeds for p in protocols]
        + [("features", name, seed, VALIDATION) for name in held_out for seed in seeds],
    )
    yield "tune", [("tune", name, seed) for name, _ in tuned for seed in seeds]
    yield (
        "retrieve",
        [("retrieval", n, s, p) for n in config.variants for s in seeds for p in protocols],
    )

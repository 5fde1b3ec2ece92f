"""What a training costs: parameters, multiplications, speed, time."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from matplotlib.ticker import EngFormatter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reid.config import Clip, Config, Model
from reid.data.holdout import VALIDATION, part
from reid.data.layouts import cameras_of
from reid.data.stored import read_split
from reid.errors import UserError
from reid.model import network
from reid.model.vit import Geometry
from reid.model.weights import read_geometry
from reid.paths import Results
from reid.progress import duration
from reid.report.collect import TrainingRecord
from reid.steps import Steps
from reid.train.common import identities_of
from reid.train.params import stage_groups

DASH = "\N{EN DASH}"
"""What stands for a number that is not known."""


def costs(config: Config, records: Sequence[TrainingRecord]) -> pd.DataFrame:
    """A line of texts for each training, of its first seed; a dash where a number is not known."""
    first = {record.training: record for record in reversed(records)}
    large, whole = EngFormatter(places=2), "{:,.0f}".format
    lines = []
    for name, training in config.trainings.items():
        record = first[name]
        sizes: tuple[float | None, ...] = (None,) * 4
        with suppress(UserError):  # without weights or index nothing is known of these
            sizes = _sizes(config, name)
        extraction = None if record.gap else _extract_speed(config, name, record.seed)
        line = {"Training": name, "Backbone": training.backbone}
        for column, form, value in (
            ("Trained in stage 1", large, sizes[0]),
            ("Trained in stage 2", large, sizes[1]),
            ("Visual parameters", large, sizes[2]),
            ("GMAC a frame", "{:.3f}".format, sizes[3]),
            ("Frames/s, training", whole, record.frames_per_second),
            ("Frames/s, extraction", whole, extraction),
            ("GPU memory, peak", lambda size: f"{size / 2**30:.1f} GiB", record.peak_memory),
        ):
            line[column] = DASH if value is None else form(value)
        lines.append(line)
    return pd.DataFrame(lines)


def step_times(config: Config) -> pd.DataFrame:
    """By step: the jobs of this configuration that Snakemake timed, and their wall time."""
    benchmark, protocols = Results.of(config).benchmark, config.dataset.protocols
    trainings, variants = list(config.trainings), list(config.variants)
    seeds = [f"seed{seed}" for seed in config.seeds]
    steps: dict[str, list[Sequence[str]]] = {
        "index": [["index"]],
        "stage 1": [["train"], trainings, seeds, ["stage1"]],
        "stage 2": [["train"], trainings, seeds, ["stage2"]],
        "extract": [["features"], trainings, seeds, [*protocols, VALIDATION]],
        "tune": [["tune"], variants, seeds],
        "retrieve": [["retrieval"], variants, seeds, protocols],
    }
    lines = []
    for step, parts in steps.items():
        times = _seconds(benchmark(*place) for place in product(*parts))
        lines.append((step, str(len(times)), duration(sum(times)) if times else DASH))
    return pd.DataFrame(lines, columns=["Step", "Jobs timed", "Time (h:min:s)"])


@cache
def macs_per_frame(model: Model, clip: Clip, geometry: Geometry) -> float:
    """Multiply-adds of a frame in extraction without mirroring, counted by running the network.

    On tensors without numbers, with attention as plain products, which the counter knows.
    """
    size = (clip.height, clip.width)
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        built = network.build(
            model, num_classes=1, num_cameras=1, weights=geometry, image_size=size
        ).eval()
        inputs = torch.empty(1, clip.frames, 3, *size), torch.zeros(1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            built.embed(*inputs, torch.empty(1, 3), torch.ones(1, clip.frames))
    operations: int = counter.get_total_flops()
    return operations / 2 / clip.frames


def _sizes(config: Config, name: str) -> tuple[float, ...]:
    """Parameters trained in stage 1 and 2, all of the network, and 1e9 multiply-adds of a frame.

    Raises UserError where the weights are no file here, or there is no index.
    """
    training = config.trainings[name]
    backbone = config.backbones[training.backbone]
    if backbone.file is None:
        raise UserError(f"{backbone.weights} is no file: its sizes are not fetched for a report")
    geometry = read_geometry(backbone.weights, training.backbone)
    index = Results.of(config).index("train")
    people = identities_of(part(read_split(index), training.validation, "train"))
    cameras = cameras_of(config.dataset.layout, index)
    stages = stage_groups(training, geometry, len(people), cameras)
    trained = [sum(group.size for group in groups if group.lr) for groups in stages.values()]
    parameters = sum(group.size for group in stages["stage 2"])
    return *trained, parameters, macs_per_frame(training.model, training.clip, geometry) / 1e9


def _extract_speed(config: Config, name: str, seed: int) -> float | None:
    """Frames a second over the protocols that Snakemake timed, each view of a frame counted."""
    results, frames = Results.of(config), 0
    views = 2 if Steps(config).flips(name) else 1
    timed: list[float] = []
    for protocol in config.dataset.protocols:
        times = _seconds([results.benchmark("features", name, f"seed{seed}", protocol)])
        if times and results.index(protocol).exists():
            tracklets = len(read_split(results.index(protocol)))
            frames += tracklets * config.trainings[name].clip.frames * views
            timed += times
    return frames / sum(timed) if timed else None


def _seconds(benchmarks: Iterable[Path]) -> list[float]:
    """Wall time of the jobs that have a benchmark."""
    return [float(pd.read_csv(path, sep="\t")["s"].sum()) for path in benchmarks if path.exists()]

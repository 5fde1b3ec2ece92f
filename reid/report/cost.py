"""What a training costs: parameters, multiplications, speed, time."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.ticker import EngFormatter

from reid.config import Clip, Config, Model
from reid.data.holdout import VALIDATION, part
from reid.data.layouts import cameras_of
from reid.data.stored import read_split
from reid.errors import UserError
from reid.fingerprint import extract_settings
from reid.paths import Results
from reid.progress import duration
from reid.report.collect import TrainingRecord

if TYPE_CHECKING:  # it imports torch
    from reid.model.vit import Geometry

DASH = "\N{EN DASH}"
"""What stands for a number that is not known."""


def costs(config: Config, records: Sequence[TrainingRecord]) -> pd.DataFrame:
    """A line of texts for each training, of its first seed; a dash where a number is not known."""
    first = {record.training: record for record in reversed(records)}
    large, whole = EngFormatter(places=2), "{:,.0f}".format
    lines = []
    for name, training in config.trainings.items():
        record, speed = first[name], None
        sizes: tuple[float | None, ...] = (None,) * 4
        with suppress(UserError):  # without weights or index nothing is known of these
            sizes = _sizes(config, name)
        if record.gap is None:
            speed = _extract_speed(config, name, record.seed)
        line = {"Training": name, "Backbone": training.backbone}
        for column, form, value in (
            ("Trained in stage 1", large, sizes[0]),
            ("Trained in stage 2", large, sizes[1]),
            ("Visual parameters", large, sizes[2]),
            ("GMAC a frame", lambda macs: f"{macs / 1e9:.3f}", sizes[3]),
            ("Frames/s, training", whole, record.frames_per_second),
            ("Frames/s, extraction", whole, speed),
            ("GPU memory, peak", lambda size: f"{size / 2**30:.1f} GiB", record.peak_memory),
        ):
            line[column] = DASH if value is None else form(value)
        lines.append(line)
    return pd.DataFrame(lines)


def step_times(config: Config) -> pd.DataFrame:
    """By step: the jobs of this configuration that Snakemake timed, and their time."""
    benchmark, protocols = Results.of(config.dataset.name).benchmark, config.dataset.protocols
    names, rows = list(config.trainings), list(config.variants)
    seeds = [f"seed{seed}" for seed in config.seeds]
    steps: dict[str, list[Sequence[str]]] = {
        "index": [["index"]],
        "stage 1": [["train"], names, seeds, ["stage1"]],
        "stage 2": [["train"], names, seeds, ["stage2"]],
        "extract": [["features"], names, seeds, [*protocols, VALIDATION]],
        "tune": [["tune"], rows, seeds],
        "retrieve": [["retrieval"], rows, seeds, protocols],
    }
    lines = []
    for step, parts in steps.items():
        times = [seconds_of(benchmark(*place)) for place in product(*parts)]
        known = [time for time in times if time is not None]
        lines.append((step, str(len(known)), duration(sum(known)) if known else DASH))
    return pd.DataFrame(lines, columns=["Step", "Jobs timed", "Time (h:min:s)"])


def seconds_of(path: Path) -> float | None:
    """Wall time of a job by Snakemake's benchmark; None without one."""
    return float(pd.read_csv(path, sep="\t")["s"].sum()) if path.exists() else None


@cache
def macs_per_frame(model: Model, clip: Clip, geometry: "Geometry") -> float:
    """Multiply-adds of a frame in extraction without mirroring, counted by running the network.

    On tensors without numbers, with attention as plain products, which the counter knows.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from reid.model import network

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


def _sizes(config: Config, name: str) -> tuple[int, int, int, float]:
    """Parameters trained in stage 1 and 2, all of them, and multiply-adds of a frame.

    Raises UserError where the weights are no file here, or there is no index.
    """
    from reid.model.weights import read_geometry
    from reid.train.common import identities_of
    from reid.train.params import stage_groups

    training = config.trainings[name]
    backbone = config.backbones[training.backbone]
    if backbone.file is None:
        raise UserError(f"{backbone.weights} is no file: its sizes are not fetched for a report")
    geometry = read_geometry(backbone.weights, training.backbone)
    index = Results.of(config.dataset.name).index("train")
    people = identities_of(part(read_split(index), training.validation, "train"))
    cameras = cameras_of(config.dataset.layout, index)
    groups = stage_groups(training, geometry, len(people), cameras)
    first, second = (
        sum(group.size for group in groups[f"stage {stage}"] if group.lr) if epochs else 0
        for stage, epochs in ((1, training.stage1.epochs), (2, training.stage2.epochs))
    )
    parameters = sum(group.size for group in groups["stage 2"])
    return first, second, parameters, macs_per_frame(training.model, training.clip, geometry)


def _extract_speed(config: Config, name: str, seed: int) -> float | None:
    results = Results.of(config.dataset.name)
    views = 2 if extract_settings(config, name)["flip"] else 1
    frames, seconds = 0, 0.0
    for protocol in config.dataset.protocols:
        took = seconds_of(results.benchmark("features", name, f"seed{seed}", protocol))
        if took is not None and results.index(protocol).exists():
            tracklets = len(read_split(results.index(protocol)))
            frames += tracklets * config.trainings[name].clip.frames * views
            seconds += took
    return frames / seconds if seconds else None

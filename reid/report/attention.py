"""Temporal attention: which frames it prefers, and whether these are the good ones (Eq. 2-4)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.stats import rankdata, spearmanr

from reid.artefacts import Results
from reid.config import Config, Report
from reid.data.layout import Tracklet
from reid.data.stored import read_split
from reid.errors import UserError
from reid.report.drawing import SERIES, Plot, drawing, legend_above, save
from reid.report.measured import Measurement
from reid.report.pictures import Album, Picture, sharpness
from reid.retrieval.breakdown import interval

SHEETS = 4
BINS = 5


@dataclass(frozen=True)
class Frame:
    """One frame of a tracklet with its weight."""

    weight: float
    height: int
    """Pixels."""
    sharpness: float
    picture: Picture


@dataclass(frozen=True)
class Sheet:
    """The frames of a tracklet by falling weight."""

    reason: str
    tracklet: Tracklet
    frames: tuple[Frame, ...]

    @property
    def mean(self) -> float:
        """The weight of mean pooling."""
        return 1 / len(self.frames)

    @property
    def most(self) -> float:
        """The largest weight."""
        return self.frames[0].weight


@dataclass(frozen=True)
class Correlation:
    """Mean over tracklets of Spearman's rho between weight and quality of their frames."""

    pool: str
    quality: str
    rho: float | None
    interval: tuple[float, float] | None
    """95 %, bootstrap over identities."""
    tracklets: int


@dataclass(frozen=True)
class Attention:
    """What the page shows of a training's temporal attention on one protocol."""

    training: str
    seed: int
    protocol: str
    sheets: tuple[Sheet, ...]
    correlations: tuple[Correlation, ...]
    plot: Plot


@dataclass(frozen=True)
class _Sample:
    """A tracklet whose frames were looked at; arrays over its T frames."""

    tracklet: Tracklet
    weights: NDArray[np.float32]  # (2, T)
    qualities: dict[str, NDArray[np.float64]]


POOLS = ("features (Eq. 2)", "projected features")


def attention(config: Config, measurement: Measurement, folder: Path) -> Attention:
    """Sheets and correlations of a training with temporal attention, on one measured protocol.

    Looks at `report.attention_tracklets` random tracklets. Raises UserError when features or
    frames are not there, or the features were extracted without weights.
    """
    options, variant = config.report, measurement.row.variant
    results = Results.of(config.dataset.name)
    source = results.features(variant.training, measurement.seed, measurement.protocol)
    weights = frame_weights(source)
    tracklets = read_split(results.index(measurement.protocol))
    clip = config.trainings[variant.training].clip
    album = Album(tracklets, config.dataset, config.runtime, clip, options.faces)
    draw = random.Random(f"{options.seed} attention")
    size = min(options.attention_tracklets, len(tracklets))
    samples = []
    for place in sorted(draw.sample(range(len(tracklets)), size)):
        frames = album.frames(tracklets[place])
        qualities = {
            "height": np.array([len(frame) for frame in frames], np.float64),
            "sharpness": np.array([sharpness(frame, clip) for frame in frames]),
        }
        samples.append(_Sample(tracklets[place], weights[place], qualities))
    chosen = choose(np.stack([sample.weights[0] for sample in samples]), options)
    return Attention(
        variant.training,
        measurement.seed,
        measurement.protocol,
        tuple(_sheet(reason, samples[place], album) for reason, place in chosen),
        tuple(
            _correlation(samples, pool, quality)
            for pool in range(len(POOLS))
            for quality in ("height", "sharpness")
        ),
        weight_plot(samples, variant.training, folder),
    )


def frame_weights(source: Path) -> NDArray[np.float32]:
    """(n, 2, T) weights of both pools by tracklet. Raises UserError when they are not there."""
    if not source.exists():
        raise UserError(f"{source} does not exist: run `reid extract`")
    with safe_open(source, framework="numpy") as opened:
        if "frame_weights" not in set(opened.keys()):
            raise UserError(f"{source} holds no frame weights: run `reid extract` again")
        found: NDArray[np.float32] = opened.get_tensor("frame_weights")
        return found


def choose(weights: NDArray[np.float32], options: Report) -> list[tuple[str, int]]:
    """Tracklets to look at: the most uneven weights, then random ones: (reason, position).

    weights: (n, T).
    """
    uneven = int(weights.max(axis=1).argmax())
    rest = [place for place in range(len(weights)) if place != uneven]
    draw = random.Random(f"{options.seed} sheets")
    drawn = draw.sample(rest, min(SHEETS - 1, len(rest)))
    return [("Most uneven", uneven), *(("Random", place) for place in sorted(drawn))]


def spearman(weights: NDArray[np.float32], quality: NDArray[np.float64]) -> float:
    """Rank correlation within a tracklet; NaN where either is the same for all frames."""
    if np.ptp(weights) == 0 or np.ptp(quality) == 0:
        return math.nan
    return float(spearmanr(weights, quality).statistic)


def weight_plot(samples: Sequence[_Sample], training: str, folder: Path) -> Plot:
    """Mean weight, over that of mean pooling, of the worst to the best frames of a tracklet."""
    table = []
    with drawing(2.3) as (figure, axes):
        for series, quality in zip(SERIES, ("height", "sharpness"), strict=False):
            ranks, gains = _relative(samples, quality)
            if not len(ranks):
                continue
            bins = np.minimum((ranks * BINS).astype(int), BINS - 1)
            present = sorted(set(bins.tolist()))
            means = [float(gains[bins == each].mean()) for each in present]
            label = {"height": "crop height", "sharpness": "sharpness"}[quality]
            axes.plot(present, means, label=f"by {label}", **series.line())
            table += [
                (quality, each + 1, int((bins == each).sum()), mean)
                for each, mean in zip(present, means, strict=True)
            ]
        axes.axhline(1, color=SERIES[3].color, linestyle=SERIES[3].dashes, linewidth=1)
        axes.text(
            0.99, 1, "mean pooling", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
            fontsize=7,
        )  # fmt: skip
        names = ["worst", *("" for _ in range(BINS - 2)), "best"]
        axes.set_xticks(range(BINS), [f"{name}\nfifth" if name else "" for name in names])
        axes.margins(y=0.25)
        axes.set_xlabel("frames of a tracklet, by quality")
        axes.set_ylabel("weight times T")
        legend_above(axes)
        said = "; ".join(f"{q} fifth {number}: {mean:.2f}" for q, number, _, mean in table)
        return save(
            figure,
            folder,
            f"attention_{training}",
            title="Weight by quality of the frame",
            alt=f"Mean weight times T by quality of the frame within its tracklet: {said}.",
            caption="Mean weight of a frame times T, by its rank in its own tracklet; 1 is mean "
            "pooling. Rising lines: degraded frames are suppressed.",
            columns=("quality", "fifth", "frames", "weight_times_T"),
            rows=table,
        )


def _relative(
    samples: Sequence[_Sample], quality: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rank within the tracklet in [0, 1) and weight times T, of all frames that differ."""
    ranks, gains = [np.empty(0)], [np.empty(0)]
    for sample in samples:
        values = sample.qualities[quality]
        if np.ptp(values) > 0:
            ranks.append((rankdata(values) - 0.5) / len(values))
            gains.append(sample.weights[0].astype(np.float64) * len(values))
    return np.concatenate(ranks), np.concatenate(gains)


def _correlation(samples: Sequence[_Sample], pool: int, quality: str) -> Correlation:
    found = [
        (rho, sample.tracklet.identity)
        for sample in samples
        if not math.isnan(rho := spearman(sample.weights[pool], sample.qualities[quality]))
    ]
    if not found:
        return Correlation(POOLS[pool], quality, None, None, 0)
    values, people = zip(*found, strict=True)
    bounds = interval(values, people)
    return Correlation(
        POOLS[pool],
        quality,
        float(np.mean(values)),
        None if bounds is None else (bounds[0], bounds[1]),
        len(values),
    )


def _sheet(reason: str, sample: _Sample, album: Album) -> Sheet:
    frames = album.frames(sample.tracklet)
    order = np.argsort(-sample.weights[0], kind="stable").tolist()
    return Sheet(
        reason,
        sample.tracklet,
        tuple(
            Frame(
                float(sample.weights[0, t]),
                len(frames[t]),
                float(sample.qualities["sharpness"][t]),
                album.picture([frames[t]]),
            )
            for t in order
        ),
    )

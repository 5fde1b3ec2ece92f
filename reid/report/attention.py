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

from reid.artifacts import Results
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
class Sample:
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
        samples.append(Sample(tracklets[place], weights[place], qualities))
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


def weight_plot(samples: Sequence[Sample], training: str, folder: Path) -> Plot:
    """Mean weight, over that of mean pooling, of the worst to the best frames of a tracklet."""
    table: list[tuple[object, ...]] = []
    bins = min(BINS, samples[0].weights.shape[1])
    with drawing(2.3) as (figure, axes):
        for series, quality in zip(SERIES, ("height", "sharpness"), strict=False):
            found = weight_by_rank(samples, quality, bins)
            label = {"height": "crop height", "sharpness": "sharpness"}[quality]
            places = [part.place for part in found]
            axes.plot(places, [p.mean for p in found], label=f"by {label}", **series.line())
            for part in found:
                if part.interval is not None:
                    axes.plot([part.place] * 2, part.interval, color=series.color, linewidth=0.9)
            table += [
                (quality, part.place + 1, part.frames, part.mean, *(part.interval or ("", "")))
                for part in found
            ]
        axes.axhline(1, color=SERIES[3].color, linestyle=SERIES[3].dashes, linewidth=1)
        right = {"transform": axes.get_yaxis_transform(), "ha": "right"}
        axes.text(0.99, 1, "mean pooling", va="bottom", fontsize=7, **right)
        axes.set_xticks(range(bins), ["worst", *[""] * (bins - 2), "best"][:bins])
        # Less than a tenth must not look like much.
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.9), max(high, 1.1))
        axes.set_xlabel("frames of a tracklet, by quality")
        axes.set_ylabel("weight times T")
        legend_above(axes)
        said = "; ".join(f"{row[0]}, part {row[1]} of {bins}: {row[3]:.2f}" for row in table)
        return save(
            figure,
            folder,
            f"attention_{training}",
            title="Weight by quality of the frame",
            alt=f"Mean weight times T by quality of the frame within its tracklet: {said}.",
            caption="Mean weight of a frame times T, by its rank in its own tracklet, with 95 % "
            "intervals over identities; 1 is mean pooling. Rising: degraded frames are suppressed.",
            columns=("quality", "part", "frames", "weight_times_T", "low", "high"),
            rows=table,
        )


@dataclass(frozen=True)
class Part:
    """Frames of about the same rank within their tracklets."""

    place: int
    frames: int
    mean: float
    interval: tuple[float, float] | None


def weight_by_rank(samples: Sequence[Sample], quality: str, bins: int) -> list[Part]:
    """Weight times T of frames by their rank in their tracklet, worst first.

    Tracklets whose frames are all equally good say nothing: they are left out.
    """
    found: dict[int, list[tuple[float, int]]] = {}
    for sample in samples:
        values = sample.qualities[quality]
        if np.ptp(values) == 0:
            continue
        ranks = (rankdata(values) - 0.5) / len(values)
        gains = sample.weights[0] * len(values)
        for rank, gain in zip(ranks.tolist(), gains.tolist(), strict=True):
            found.setdefault(int(rank * bins), []).append((gain, sample.tracklet.identity))
    parts = []
    for place in sorted(found):
        gains, people = zip(*found[place], strict=True)
        bounds = interval(gains, people)
        both = None if bounds is None else (bounds[0], bounds[1])
        parts.append(Part(place, len(gains), float(np.mean(gains)), both))
    return parts


def _correlation(samples: Sequence[Sample], pool: int, quality: str) -> Correlation:
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


def _sheet(reason: str, sample: Sample, album: Album) -> Sheet:
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

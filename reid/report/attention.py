"""Temporal attention: which frames it prefers, and whether these are the good ones (Eq. 2-4)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from reid.config import Config
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.paths import Results
from reid.report.collect import Measurement
from reid.report.figures import HOLLOW, Look, Plot, canvas, horizontal, legend_above
from reid.report.pictures import Album, Picture, sharpness
from reid.retrieval.breakdown import interval

RANDOM_SHEETS = 3
"""Tracklets that are shown where no angle is known."""
BINS = 5
POOLS = ("Features (Eq. 2)", "Projected features")
QUALITIES = ("height", "sharpness")


@dataclass(frozen=True)
class WeightedTracklet:
    """A tracklet with the weights and the qualities of its T sampled frames."""

    tracklet: Tracklet
    weights: NDArray[np.float32]  # (2, T)
    qualities: dict[str, NDArray[np.float64]]  # (T,) each


@dataclass(frozen=True)
class Sheet:
    """The frames of a tracklet by falling weight: weight, height in pixels, sharpness, picture."""

    reason: str
    tracklet: Tracklet
    frames: list[tuple[float, int, float, Picture]]


def attention(config: Config, measurement: Measurement, look: Look) -> tuple[Plot, list[Sheet]]:
    """Weights by quality, and tracklets to look at, of a training on one measured protocol.

    Reads `report.attention_tracklets` random tracklets. Raises UserError when features or frames
    are not there, or the features were extracted without weights.
    """
    options, training = config.report, measurement.training
    results = Results.of(config.dataset.name)
    weights = frame_weights(results.features(training, measurement.seed, measurement.protocol))
    tracklets = read_split(results.index(measurement.protocol))
    clip = config.trainings[training].clip
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
        samples.append(WeightedTracklet(tracklets[place], weights[place], qualities))
    sheets = [_sheet(reason, sample, album) for reason, sample in choose(samples, options.seed)]
    return weight_plot(samples, training, look), sheets


def frame_weights(source: Path) -> NDArray[np.float32]:
    """(n, 2, T) weights of both pools by tracklet. Raises UserError when they are not there."""
    if not source.exists():
        raise UserError(f"{source} does not exist: run `reid extract`")
    with safe_open(source, framework="numpy") as opened:
        if "frame_weights" not in set(opened.keys()):
            raise UserError(f"{source} holds no frame weights: run `reid extract` again")
        weights: NDArray[np.float32] = opened.get_tensor("frame_weights")
        return weights


def choose(samples: Sequence[WeightedTracklet], seed: int) -> list[tuple[str, WeightedTracklet]]:
    """Tracklets to look at, with the reason: the most uneven weights, then one of each angle.

    Where no angle is known, some at random.
    """
    uneven = max(samples, key=lambda sample: float(sample.weights[0].max()))
    rest = [sample for sample in samples if sample is not uneven]
    random.Random(f"{seed} sheets").shuffle(rest)
    angles = {s.tracklet.angle: s for s in rest if not math.isnan(s.tracklet.angle)}
    chosen = [(f"Random, {angle:g} degrees", angles[angle]) for angle in sorted(angles)]
    return [("Most uneven", uneven), *(chosen or [("Random", s) for s in rest[:RANDOM_SHEETS]])]


def correlation(samples: Sequence[WeightedTracklet], pool: int, quality: str) -> str:
    """Spearman's rho of a pool's weights with a quality, in words.

    Mean over the tracklets in which both vary, and its 95 % interval over identities.
    """
    pairs = [
        (rho, sample.tracklet.identity)
        for sample in samples
        if not math.isnan(rho := spearman(sample.weights[pool], sample.qualities[quality]))
    ]
    if not pairs:
        return f"{quality}: the same in all frames"
    rhos, people = zip(*pairs, strict=True)
    bounds = interval(rhos, people)
    text = f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else ""
    return f"{quality} {np.mean(rhos):.2f}{text}, {len(pairs)} tracklets"


def spearman(weights: NDArray[np.float32], quality: NDArray[np.float64]) -> float:
    """Rank correlation within a tracklet; NaN where either is the same for all frames."""
    if np.ptp(weights) == 0 or np.ptp(quality) == 0:
        return math.nan
    return float(np.corrcoef(pd.Series(weights).rank(), pd.Series(quality).rank())[0, 1])


def weight_by_rank(samples: Sequence[WeightedTracklet], quality: str, bins: int) -> pd.DataFrame:
    """Weight times T of frames by their rank in their tracklet, in parts from worst to best.

    Columns: quality, part (from 1), frames, weight_times_T (mean), low, high (95 % interval over
    identities). Tracklets whose frames are all equally good are left out.
    """
    frames = []
    for sample in samples:
        values, count = sample.qualities[quality], len(sample.weights[0])
        ranks = (pd.Series(values).rank() - 0.5) / count
        gains = {"part": (ranks * bins).astype(int) + 1, "gain": sample.weights[0] * count}
        if np.ptp(values) > 0:
            frames.append(pd.DataFrame({**gains, "identity": sample.tracklet.identity}))
    lines = []
    for part, group in pd.concat(frames).groupby("part") if frames else ():
        bounds = interval(group["gain"], group["identity"]) or (None, None)
        lines.append((quality, part, len(group), group["gain"].mean(), *bounds))
    columns = ["quality", "part", "frames", "weight_times_T", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def weight_plot(samples: Sequence[WeightedTracklet], training: str, look: Look) -> Plot:
    """Mean weight, over that of mean pooling, of the worst to the best frames of a tracklet."""
    style = look[training]
    bins = min(BINS, samples[0].weights.shape[1])
    parts = [weight_by_rank(samples, quality, bins) for quality in QUALITIES]
    table = pd.concat(parts, ignore_index=True)
    with canvas(2.3) as (figure, axes):
        for quality, part in table.groupby("quality"):
            line = style if quality == "height" else {**style, **HOLLOW}
            x = part["part"] + (0 if quality == "height" else 0.05)  # side by side
            axes.plot(x, part["weight_times_T"], label=f"by {quality}", **line)
            known = part.dropna()
            axes.vlines(x[known.index], known["low"], known["high"], style["color"], linewidth=0.9)
        horizontal(axes, 1, "mean pooling")
        axes.set_xticks(range(1, bins + 1), ["worst", *[""] * (bins - 2), "best"][:bins])
        # Less than a tenth must not look like much.
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.9), max(high, 1.1))
        axes.set_xlabel("frames of a tracklet, by quality")
        axes.set_ylabel("weight times T")
        legend_above(axes)
    values = table[["quality", "part", "weight_times_T"]].to_numpy()
    texts = [f"{quality}, part {part} of {bins}: {mean:.2f}" for quality, part, mean in values]
    rhos = [
        f"{name}: {'; '.join(correlation(samples, pool, quality) for quality in QUALITIES)}"
        for pool, name in enumerate(POOLS)
    ]
    return look.save(
        figure, f"attention_{training}", table,
        title="Weight by quality of the frame",
        alt=f"Mean weight times T by quality of the frame in its tracklet: {'; '.join(texts)}.",
        caption="Mean weight of a frame times T, by its rank in its own tracklet, with 95 % "
        "intervals over identities; 1 is mean pooling. Rising: degraded frames are suppressed. "
        "Height is that of the crop, sharpness the variance of the Laplacian at the size the "
        "network sees. Spearman's rank correlation of weight and quality within a tracklet, mean "
        "over tracklets (95 % interval over identities); positive: better frames weigh more. "
        f"{'. '.join(rhos)}.",
    )  # fmt: skip


def _sheet(reason: str, sample: WeightedTracklet, album: Album) -> Sheet:
    frames, weights = album.frames(sample.tracklet), sample.weights[0]
    order = np.argsort(-weights, kind="stable").tolist()
    sharp = sample.qualities["sharpness"]
    parts = [
        (float(weights[t]), len(frames[t]), float(sharp[t]), album.picture([frames[t]]))
        for t in order
    ]
    return Sheet(reason, sample.tracklet, parts)

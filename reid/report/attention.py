"""Temporal attention: which frames it prefers, and whether these are the good ones (Eq. 2-4).

A table of frames has one row a frame: tracklet (position in its split), identity, the weights
`features` and `projected` of the two pools, height (pixels of the crop) and sharpness.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision.transforms.v2.functional import rgb_to_grayscale

from reid.config import Config
from reid.data.dataset import TrackletDataset
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.paths import Results
from reid.report.collect import Measurement
from reid.report.figures import HOLLOW, Look, Plot, canvas, horizontal, legend_above
from reid.report.ranked import picture
from reid.retrieval.breakdown import interval

RANDOM_SHEETS = 3
"""Tracklets that are shown where no angle is known."""
BINS = 5
POOLS = {"features": "Features (Eq. 2)", "projected": "Projected features"}
QUALITIES = ("height", "sharpness")


@dataclass(frozen=True)
class Sheet:
    """A tracklet to look at: its table of frames by falling weight, with their pictures."""

    reason: str
    tracklet: Tracklet
    frames: pd.DataFrame


def attention(config: Config, measurement: Measurement, look: Look) -> tuple[Plot, list[Sheet]]:
    """Weights by quality, and tracklets to look at, of a training on one measured protocol.

    Reads `report.attention_tracklets` random tracklets. Raises UserError when features or frames
    are not there, or the features were extracted without weights.
    """
    options, training = config.report, measurement.training
    results = Results.of(config)
    weights = frame_weights(results.features(training, measurement.seed, measurement.protocol))
    tracklets = read_split(results.index(measurement.protocol))
    clip, pack = config.trainings[training].clip, config.runtime.pack
    clips = TrackletDataset(tracklets, config.dataset.root, clip=clip, train=False, pack=pack)
    draw = random.Random(f"{options.seed} attention")
    size = min(options.attention_tracklets, len(tracklets))
    parts = []
    for place in sorted(draw.sample(range(len(tracklets)), size)):
        batch = clips[place]
        values = {
            "tracklet": place,
            "identity": tracklets[place].identity,
            **dict(zip(POOLS, weights[place], strict=True)),
            "height": batch.heights[0].int(),
            "sharpness": sharpness(batch.frames[0]),
        }
        parts.append(pd.DataFrame(values))
    frames = pd.concat(parts, ignore_index=True)
    sheets = []
    for reason, place in choose(frames, tracklets, options.seed):
        pictures = [picture(frame, options.faces) for frame in clips[place].frames[0][:, None]]
        rows = frames[frames["tracklet"] == place].assign(picture=pictures)
        rows = rows.sort_values("features", ascending=False, kind="stable")
        sheets.append(Sheet(reason, tracklets[place], rows))
    return weight_plot(frames, training, look), sheets


def frame_weights(source: Path) -> NDArray[np.float32]:
    """(n, 2, T) weights of both pools by tracklet. Raises UserError when they are not there."""
    if not source.exists():
        raise UserError(f"{source} does not exist: run `reid extract`")
    with safe_open(source, framework="numpy") as opened:
        if "frame_weights" not in set(opened.keys()):
            raise UserError(f"{source} holds no frame weights: run `reid extract` again")
        weights: NDArray[np.float32] = opened.get_tensor("frame_weights")
        return weights


def sharpness(frames: Tensor) -> Tensor:
    """(T,) variance of the Laplacian of the gray frames, uint8 (T, 3, H, W), as the network sees
    them. Blur and few pixels both make it small."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return conv2d(rgb_to_grayscale(frames.float()), kernel[None, None]).flatten(1).var(1, False)


def choose(frames: pd.DataFrame, tracklets: Sequence[Tracklet], seed: int) -> list[tuple[str, int]]:
    """Tracklets to look at, with the reason: the most uneven weights, then one of each angle.

    Where no angle is known, some at random.
    """
    uneven = int(frames["tracklet"].iloc[frames["features"].argmax()])
    rest = [place for place in frames["tracklet"].unique().tolist() if place != uneven]
    random.Random(f"{seed} sheets").shuffle(rest)
    angles = {a: place for place in rest if not math.isnan(a := tracklets[place].angle)}
    chosen = [(f"Random, {angle:g} degrees", angles[angle]) for angle in sorted(angles)]
    return [("Most uneven", uneven), *(chosen or [("Random", p) for p in rest[:RANDOM_SHEETS]])]


def correlation(frames: pd.DataFrame, pool: str, quality: str) -> str:
    """Spearman's rho of a pool's weights with a quality within a tracklet, in words.

    Mean over the tracklets in which both vary, and its 95 % interval over identities.
    """
    tracklets = frames.groupby("tracklet")
    table = tracklets[[pool, quality]].corr(method="spearman")
    rhos = table.xs(pool, level=1)[quality].dropna()
    if rhos.empty:
        return f"{quality}: the same in all frames"
    bounds = interval(rhos, tracklets["identity"].first()[rhos.index])
    text = f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else ""
    return f"{quality} {rhos.mean():.2f}{text}, {len(rhos)} tracklets"


def weight_by_rank(frames: pd.DataFrame, quality: str, bins: int) -> pd.DataFrame:
    """Weight times T of frames by their rank in their tracklet, in parts from worst to best.

    Columns: quality, part (from 1), frames, weight_times_T (mean), low, high (95 % interval over
    identities). Tracklets whose frames are all equally good are left out.
    """
    values = frames.groupby("tracklet")[quality]
    count = values.transform("size")
    parts = ((values.rank() - 0.5) / count * bins).astype(int) + 1
    table = frames.assign(part=parts, gain=frames["features"] * count)
    lines = []
    for part, group in table[values.transform("nunique") > 1].groupby("part"):
        bounds = interval(group["gain"], group["identity"]) or (None, None)
        lines.append((quality, part, len(group), group["gain"].mean(), *bounds))
    columns = ["quality", "part", "frames", "weight_times_T", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def weight_plot(frames: pd.DataFrame, training: str, look: Look) -> Plot:
    """Mean weight, over that of mean pooling, of the worst to the best frames of a tracklet."""
    style = look[training]
    bins = min(BINS, int(frames["tracklet"].value_counts().max()))
    parts = {quality: weight_by_rank(frames, quality, bins) for quality in QUALITIES}
    with canvas(2.3) as (figure, axes):
        for place, (quality, part) in enumerate(parts.items()):
            x = part["part"] + 0.05 * place  # side by side
            line = {**style, **HOLLOW} if place else style
            axes.plot(x, part["weight_times_T"], label=f"by {quality}", **line)
            axes.vlines(x, part["low"], part["high"], style["color"], linewidth=0.9)
        horizontal(axes, 1, "mean pooling")
        axes.set_xticks(range(1, bins + 1), ["worst", *[""] * (bins - 2), "best"][:bins])
        # Less than a tenth must not look like much.
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.9), max(high, 1.1))
        axes.set_xlabel("frames of a tracklet, by quality")
        axes.set_ylabel("weight times T")
        legend_above(axes)
    table = pd.concat(parts.values(), ignore_index=True)
    values = table[["quality", "part", "weight_times_T"]].to_numpy()
    texts = [f"{quality}, part {part} of {bins}: {mean:.2f}" for quality, part, mean in values]
    rhos = [
        f"{name}: {'; '.join(correlation(frames, pool, quality) for quality in QUALITIES)}"
        for pool, name in POOLS.items()
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

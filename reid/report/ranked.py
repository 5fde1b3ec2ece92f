"""Ranked lists: what the gallery returns first to chosen queries, before and after re-ranking.

Pictures are of the clips that the network sees at test; heads are blurred unless told otherwise.
"""

import base64
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import encode_jpeg

from reid.config import Config, Report, ReRanking
from reid.data.dataset import TrackletDataset, resize
from reid.data.stored import read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.features.features import read_features, read_heights
from reid.paths import Results
from reid.report.collect import Measurement
from reid.retrieval.distances import device_for
from reid.retrieval.metrics import rank, summarize
from reid.retrieval.retrieve import distances_of, labels, split_protocol

Faces = Literal["blur", "keep"]
HEAD = 0.22
"""Share of a crop's height, from the top, where a standing person's head is."""
CELL = (112, 56)
"""Height and width of a frame in a picture, pixels."""
QUERY_FRAMES, GALLERY_FRAMES = 8, 2
EXTREMES, RANDOM, POINTS = "", "random queries", "one query from each capture point"
"""Groups of the queries that are shown: the best and the worst, and two more."""


@dataclass(frozen=True)
class Entry:
    """A gallery tracklet in a ranking, junk removed."""

    tracklet: Tracklet
    hit: bool
    distance: float
    picture: str


@dataclass(frozen=True)
class Ranking:
    """The first entries of one ranking from rank 1 on, and its quality."""

    title: str
    entries: list[Entry]
    ap: float
    first_hit: int
    positives: int


@dataclass(frozen=True)
class RankedQuery:
    """A query with its rankings: before re-ranking and, if there is any, after it."""

    reason: str
    """Why it is shown."""
    query: Tracklet
    height: float | None
    """Median pixel height of its crops."""
    picture: str
    rankings: list[Ranking]


def strip(clips: TrackletDataset, place: int, most: int, faces: Faces) -> str:
    """At most `most` frames of a clip side by side, evenly chosen."""
    frames = clips[place].frames[0]
    chosen = torch.linspace(0, len(frames) - 1, min(most, len(frames))).round().long()
    return picture(frames[chosen], faces)


def picture(frames: Tensor, faces: Faces) -> str:
    """Frames, uint8 (n, 3, H, W), side by side, each as a cell: a JPEG as an address."""
    shown = hide_heads(frames) if faces == "blur" else frames
    sheet = torch.cat([resize(frame, *CELL) for frame in shown], dim=2)
    data = encode_jpeg(sheet, quality=80).numpy().tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def hide_heads(frames: Tensor) -> Tensor:
    """A copy of uint8 (n, 3, H, W) whose tops are blurred down to two colors, left and right.

    It hides a face where the crop is a standing person. It is no guarantee of anonymity: seen from
    above or bent, the head may be elsewhere, and clothes and gait stay.
    """
    rows = math.ceil(HEAD * frames.shape[2])
    heads, hidden = frames[:, :, :rows], frames.clone()
    colors = interpolate(heads.float(), (1, 2), mode="area")
    hidden[:, :, :rows] = interpolate(colors, heads.shape[2:], mode="bilinear").round()
    return hidden


def ranked_lists(config: Config, measurement: Measurement) -> dict[str, list[RankedQuery]]:
    """The chosen queries of one measured protocol with their ranked lists, by group.

    Re-ranking needs all queries, but only the distances of the chosen ones are kept. Raises
    UserError when features or frames are not there, or the index changed after the measurement.
    """
    options, variant = config.report, config.variants[measurement.variant]
    results = Results.of(config)
    index = results.index(measurement.protocol)
    tracklets = read_split(index)
    source = results.features(variant.training, measurement.seed, measurement.protocol)
    features = read_features(source, rows=len(tracklets), flip_tta=variant.flip_tta)
    heights = read_heights(source, rows=len(tracklets))
    queries, gallery = split_protocol(tracklets)
    split = len(queries)
    if measurement.content["per_query"]["tracklet"] != [query.name for query in queries]:
        raise UserError(f"{index} changed: run `reid retrieve` again")
    clip, pack = config.trainings[variant.training].clip, config.runtime.pack
    clips = TrackletDataset(tracklets, config.dataset.root, clip=clip, train=False, pack=pack)
    shown = cache(partial(strip, clips, faces=options.faces))
    groups = choose(measurement, queries, heights, options)
    chosen = sorted({q for group in groups.values() for _, q in group})
    rankings: dict[int, list[Ranking]] = {q: [] for q in chosen}
    rerank = measurement.content["rerank"]
    device = device_for(config.runtime.device, len(tracklets))
    for used in (None, ReRanking(**rerank)) if rerank else (None,):
        title = "Cosine distance"
        if used:
            title = f"Re-ranked (k1 {used.k1}, k2 {used.k2}, λ {used.lambda_value:g})"
        distances = distances_of(features[:split], features[split:], used, device)[chosen]
        pairs = rank(distances, *labels([queries[q] for q in chosen], gallery))
        metrics = summarize(pairs)
        for place, q in enumerate(chosen):
            junk, hits = (
                set(pairs.entry[(pairs.junk == left_out) & (pairs.query == place)].tolist())
                for left_out in (True, False)
            )
            order = np.argsort(distances[place], kind="stable").tolist()
            entries = [
                Entry(gallery[g], g in hits, distances[place, g], shown(split + g, GALLERY_FRAMES))
                for g in [g for g in order if g not in junk][: options.top]
            ]
            quality = float(metrics.ap_per_query[place]), int(metrics.first_rank[place])
            rankings[q].append(Ranking(title, entries, *quality, len(hits)))

    def ranked(reason: str, q: int) -> RankedQuery:
        height = None if heights is None else float(heights[q])
        return RankedQuery(reason, queries[q], height, shown(q, QUERY_FRAMES), rankings[q])

    return {name: [ranked(*each) for each in group] for name, group in groups.items()}


def choose(
    measurement: Measurement,
    queries: Sequence[Tracklet],
    heights: NDArray[np.float32] | None,
    options: Report,
) -> dict[str, list[tuple[str, int]]]:
    """Queries that are shown by group, as (reason, position); each has a positive.

    The best and the worst by average precision: of equally good queries the one with the fewest
    pixels, of equally bad ones that with the most, since these are left to explain. Others at
    random; and one at random of each capture point, of which ground queries have none.
    """
    precision = measurement.content["per_query"]["ap"]
    known = [q for q, ap in enumerate(precision) if ap is not None]
    size = np.zeros(len(queries)) if heights is None else heights
    order = sorted(known, key=lambda q: (-precision[q], size[q]))
    best, worst = order[0], order[-1]
    draw = random.Random(f"{options.seed} {measurement.protocol}")
    rest = [q for q in known if q not in (best, worst)]
    drawn = sorted(draw.sample(rest, min(options.queries, len(rest))))
    points: dict[int, list[int]] = {}
    for q in known:
        if (point := queries[q].capture_point) is not None:
            points.setdefault(point, []).append(q)
    return {
        EXTREMES: [("Best", best), ("Worst", worst)],
        RANDOM: [("Random", q) for q in drawn],
        POINTS: [
            (f"Capture point {point}", draw.choice(points[point])) for point in sorted(points)
        ],
    }

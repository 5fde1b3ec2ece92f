"""Small results folders: an index, features, a configuration, no images and no training."""

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from reid import config
from reid.data.index import Index
from reid.data.tracklet import CAPTURE_POINTS, Tracklet
from reid.paths import Results
from tests.manifests import describe

SIDES = {
    "A2G": ((1, 2), (0,)),
    "G2A": ((0,), (1, 2)),
    "A2A": ((1,), (1, 2)),
    "G2G": ((0,), (0,)),
    "ALL": ((0, 1, 2), (0, 1, 2)),
}
"""Cameras of queries and gallery. Entries of camera 1 in the gallery of A2A are junk."""


def tracklet(identity, camera, number, subset, folder="x"):
    altitude, distance, angle = CAPTURE_POINTS[number % 18] if camera else (math.nan,) * 3
    name = f"{identity:04d}_{camera * 100 + number:04d}"
    return Tracklet(
        identity=identity,
        name=name,
        path=f"{folder}/{subset}/{identity:04d}/{name}",
        subset=subset,
        view="aerial" if camera else "ground",
        camera=camera,
        session=camera or None,
        altitude=altitude,
        distance=distance,
        angle=angle,
        frames=(f"{name}_00001.jpg",),
    )


def protocol_tracklets(protocol, *, identities=6, tracklets=3):
    queries, gallery = SIDES[protocol]
    return tuple(
        tracklet(identity, camera, number + first, subset, protocol)
        for subset, cameras in (("query", queries), ("gallery", gallery))
        for identity in range(101, 101 + identities)
        for camera in cameras
        for first in [tracklets if subset == "gallery" and camera in queries else 0]
        for number in range(tracklets)
    )


def train_tracklets():
    return tuple(
        tracklet(identity, camera, number, "train", "train")
        for identity in range(1, 13)
        for camera in (0, 1, 2)
        for number in range(2)
    )


def features_of(tracklets, *, seed, noise, size=16):
    rng = np.random.default_rng(seed)
    center = {t: np.random.default_rng(t).standard_normal(size) for t in range(1, 200)}
    rows = [center[t.identity] + noise * rng.standard_normal(size) for t in tracklets]
    return np.array(rows, np.float32)


def settings(**changes):
    raw = {
        "dataset": {"name": "small", "root": "data"},
        "backbones": {"tiny": {"weights": "tiny.safetensors"}},
        "trainings": {"plain": {"backbone": "tiny"}, "good": {"backbone": "tiny"}},
        "variants": {
            "plain": {"training": "plain", "label": "Plain CLIP", "reference": True},
            "good": {"training": "good", "label": "Good", "paper": 28.11},
            "rerank": {
                "training": "good",
                "label": "+ Re-ranking",
                "flip_tta": True,
                "rerank": {"k1": 5, "k2": 2, "lambda_value": 0.3},
                "paper": 29.4,
                "note": "tuned on the leaderboard, as published.",
            },
        },
    }
    return config.parse(raw | changes, source="test")


def write_features(path: Path, features, flipped=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    heights = np.arange(16, 16 + len(features), dtype=np.float32)
    tensors = {"features": features, "heights": heights}
    if flipped is not None:
        tensors["flipped"] = flipped.copy()
    save_file(tensors, path)


def make(options):
    """Index and features of every training, seed and protocol, under the working directory.

    Their manifests say that they were made with `options`, by trainings of which nothing is there.
    """
    results = Results.of(options)
    splits = {protocol: protocol_tracklets(protocol) for protocol in options.dataset.protocols}
    Index({"train": train_tracklets(), **splits}, ()).write(results.index("train").parent)
    for training in options.trainings:
        noise = {"plain": 3.0, "good": 1.0}[training]
        for seed in options.seeds:
            for stage in (1, 2):
                results.stage(training, seed, stage).parent.mkdir(parents=True, exist_ok=True)
                results.stage(training, seed, stage).touch()
            for protocol, tracklets in splits.items():
                rows = features_of(tracklets, seed=seed, noise=noise)
                mirrored = features_of(tracklets, seed=seed + 1000, noise=noise)
                write_features(results.features(training, seed, protocol), rows, mirrored)
    describe(options)
    return results

"""The smallest whole experiment, by the commands a user runs, and the numbers that pin it.

Its inputs hide nothing but arithmetic. Frames are drawn with NumPy as uniform 8 x 8 blocks and
saved without chroma subsampling, so that every JPEG decoder gives the same pixels; a frame is
either as large as the clip or of one color, so that every resize does. Color jitter is off. A
golden value therefore changes only with the computation after decoding and resizing.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from reid.cli import main
from reid.data.detreidx import PROTOCOL_FOLDERS
from tests.clips import TINY, state_dict
from tests.trees import frame_name

PATH = Path(__file__).with_name("golden.json")

SCHEDULE = {"kind": "cosine", "warmup_epochs": 1, "warmup_factor": 0.5, "stepped": "before"}
SETTINGS: dict[str, Any] = {
    "dataset": {"name": "golden", "root": "data"},
    "backbones": {"tiny": {"weights": "tiny.safetensors"}},
    "trainings": {
        "all": {
            "backbone": "tiny",
            "clip": {"frames": 3, "height": 32, "width": 16},
            "model": {
                "stride": 8,
                "prompts": {"length": 2, "depth": 2, "metadata_dropout": 0.3},
                "adapters": {"width": 64},
                "pooling": {"kind": "attention", "quality": True},
                "neck": {"instance_norm": True},
            },
            "finetune": {"blocks": 1},
            "augment": {"pad": 2},
            "validation": {"share": 0.3},
            "stage1": {
                "epochs": 3, "batch_size": 6, "instances": 2, "lr": 0.01, "schedule": SCHEDULE,
            },
            "stage2": {
                "epochs": 3, "batch_size": 8, "instances": 2, "lr": 0.001, "schedule": SCHEDULE,
            },
        }
    },
    "variants": {
        "plain": {"training": "all", "label": "plain"},
        "flipped": {"training": "all", "label": "flipped", "flip_tta": True},
        "reranked": {
            "training": "all",
            "label": "re-ranked",
            "flip_tta": True,
            "rerank": {"k1": 6, "k2": 3, "lambda_value": 0.3},
        },
    },
    "runtime": {"workers": 0, "device": "cpu", "precision": "fp32", "tensorboard": False},
}  # fmt: skip

SIDES = {"A2G": ((1, 2), (0,)), "G2A": ((0,), (1, 2)), "A2A": ((1,), (2,))}
PEOPLE, STRANGERS, TRACKLETS, FRAMES = 8, 8, 2, 7


def measure(home: Path) -> dict[str, Any]:
    """Run the experiment in the empty folder `home`; returns its golden values, JSON-able."""
    write_inputs(home)
    with working_in(home):
        run("index")
        for stage in ("stage1", "stage2"):
            run("train", stage, "--training", "all", "--seed", "1")
        for protocol in SIDES:
            run("extract", "--training", "all", "--seed", "1", "--protocol", protocol)
            for variant in SETTINGS["variants"]:
                run("retrieve", "--variant", variant, "--seed", "1", "--protocol", protocol)
        run("table")
        return values_of(Path("results/golden"))


def values_of(results: Path) -> dict[str, Any]:
    """The golden values of a finished experiment, from its artifacts.

    `losses` and `gradient_norms` of every step; of every trained tensor its L2 norm; of the
    features of each protocol the mean norm and the first entries; the table's mAPs in per cent.
    """
    folder = results / "train" / "all" / "seed1"
    stages = {}
    for stage in ("stage1", "stage2"):
        (journal,) = folder.glob(f"{stage}-*/{stage}.jsonl")
        records = map(json.loads, journal.read_text().splitlines())
        steps = [record for record in records if "step" in record]
        norms = [record.pop("gradient_norm") for record in steps]
        weights = load_file(folder / f"{stage}.safetensors")
        stages[stage] = {
            "losses": [rounded(record) for record in steps],
            "gradient_norms": rounded(norms[0]),
            "parameter_norms": rounded(
                {name: float(tensor.double().norm()) for name, tensor in sorted(weights.items())}
            ),
        }
    features = {}
    for protocol in SIDES:
        tensors = load_file(results / "features" / "all" / "seed1" / f"{protocol}.safetensors")
        features[protocol] = {
            name: {
                "mean_norm": rounded(float(tensor.flatten(1).norm(dim=1).mean())),
                "first": rounded(tensor[0].flatten()[:6].tolist()),
                "last": rounded(tensor[-1].flatten()[-6:].tolist()),
            }
            for name, tensor in sorted(tensors.items())
            if tensor.dim() > 1
        }
    with (results / "tables" / "ablation.csv").open(newline="") as opened:
        table = {
            row["variant"]: {name: rounded(float(row[f"{name}_mean_ap"])) for name in SIDES}
            for row in csv.DictReader(opened)
        }
    return {**stages, "features": features, "mAP": table}


def rounded(value: Any) -> Any:
    """Seven significant digits of every number, which float32 does not exceed."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def write_inputs(home: Path, settings: Mapping[str, Any] = SETTINGS) -> None:
    """Frames in the DetReIDX layout, tiny CLIP weights and the configuration."""
    for identity in range(1, PEOPLE + 1):
        write_person(home / "data" / "train", identity, (0, 1, 2))
    for protocol, (query, gallery) in SIDES.items():
        folder = home / "data" / PROTOCOL_FOLDERS[protocol]
        for identity in range(PEOPLE + 1, PEOPLE + STRANGERS + 1):
            write_person(folder / "query", identity, query)
            write_person(folder / "gallery", identity, gallery)
    save_file(state_dict(TINY), home / "tiny.safetensors")
    (home / "config.yaml").write_text(yaml.safe_dump(dict(settings)))


def write_person(folder: Path, identity: int, cameras: tuple[int, ...]) -> None:
    """Tracklets of one identity from each of the cameras."""
    for camera in cameras:
        for number in range(TRACKLETS):
            tracklet = folder / f"{identity:04d}" / f"{identity:04d}_{camera * 100 + number:04d}"
            tracklet.mkdir(parents=True)
            for frame in range(FRAMES):
                point = 1 + (identity + 7 * number) % 18
                name = frame_name(identity, frame, camera=camera, point=point)
                pixels = draw(identity, camera, number, frame)
                Image.fromarray(pixels).save(tracklet / name, quality=100, subsampling=0)


def draw(identity: int, camera: int, number: int, frame: int) -> np.ndarray:
    """One frame, uint8 (H, W, 3): blocks in the identity's colors, or one of them all over."""
    person = np.random.default_rng([7, identity]).integers(40, 216, size=(4, 2, 3))
    rng = np.random.default_rng([8, identity, camera, number, frame])
    blocks = person + rng.integers(-40, 41, size=(4, 2, 3))
    if rng.random() < 0.4:
        height = int(rng.integers(20, 90))
        return np.full((height, height // 2, 3), blocks[0, 0], np.uint8)
    return blocks.astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def run(*arguments: str) -> None:
    """A command of `reid`. Raises RuntimeError unless it succeeds."""
    code = main([*arguments, "--config", "config.yaml"])
    if code:
        raise RuntimeError(f"reid {' '.join(arguments)} exited with {code}")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change into a folder, with one thread of torch, for the time being."""
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.chdir(before)

"""What the benchmarks of the data path share: a race of two, generated crops, a tree of them.

Only ratios are meant: both sides alternate in one run, the figure is the median of the ratios of
CPU time (loading processes included) over the rounds; wall time stands beside where waiting
matters. "Pillow" is the path of the released code written plainly: open, convert, resize,
per-frame transforms, to tensor, normalize.
"""

import argparse
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from reid.data.augment import MEAN, STD
from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.data.tracklet import CAPTURE_POINTS

HEIGHT, WIDTH = 256, 128
BANDS = ((12, 32), (32, 64), (64, 128), (128, 257), (12, 257))
"""Heights of crops: from, to below. The last is all of them."""
ASPECT = 0.35, 0.45
"""Width over height, as of real pedestrians (0.37 to 0.45 on average, by height)."""
CLIP = 16
SPLITS = ("train", "A2G", "G2A", "A2A")


class Race(NamedTuple):
    """Medians over the rounds."""

    ours: float
    """CPU seconds."""
    theirs: float
    ratio: float
    """Theirs over ours, of CPU time in the same round."""
    wall_ours: float
    wall_theirs: float
    wall_ratio: float


def spent() -> tuple[float, float]:
    """CPU seconds of this process and its finished children, and the clock."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages), time.perf_counter()


def race(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Race:
    """Run both in turn, `rounds` times after one for warming up."""
    ours(), theirs()
    rows = []
    for _ in range(rounds):
        start = spent()
        theirs()
        middle = spent()
        ours()
        end = spent()
        own, other = (
            (b - a for a, b in zip(middle, end, strict=True)),
            (b - a for a, b in zip(start, middle, strict=True)),
        )
        (own_cpu, own_wall), (other_cpu, other_wall) = own, other
        rows.append(
            (own_cpu, other_cpu, other_cpu / own_cpu, own_wall, other_wall, other_wall / own_wall)
        )
    return Race(*(statistics.median(column) for column in zip(*rows, strict=True)))


def crops(count: int, band: tuple[int, int], seed: int = 0) -> list[bytes]:
    """JPEGs with heights log-uniform over `band`, person-shaped, textured and noisy."""
    rng = np.random.default_rng(seed)
    encoded = []
    for height in np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), count)).astype(int):
        width = max(4, int(height * rng.uniform(*ASPECT)))
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        stream = BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


def grow(root: Path) -> None:
    """A DetReIDX tree of 400 tracklets of 500 frames; made once, kept."""
    whole, recipe = root / "whole", f"heights {BANDS[-1]}, aspect {ASPECT}\n"
    if whole.exists() and whole.read_text() == recipe:
        return
    shutil.rmtree(root, ignore_errors=True)  # so that a pack of it is not taken for one of the new
    encoded = crops(2000, BANDS[-1], seed=1)
    sides = {"A2G": ((1, 2, 1, 2, 1), (0, 0)), "G2A": ((0, 0), (1, 2, 1, 2, 1))}
    sides["A2A"] = ((1, 1, 1), (2, 2, 2))
    folders = [("train", person, (0, 1, 1, 1, 2, 2, 2, 0, 1, 2)) for person in range(1, 21)]
    for protocol, parts in sides.items():
        for part, cameras in zip(("query", "gallery"), parts, strict=True):
            folder = f"{PROTOCOL_FOLDERS[protocol]}/{part}"
            folders += [(folder, person, cameras) for person in range(21, 31)]
    turn = cycle(encoded)
    for folder, person, cameras in folders:
        for number, camera in enumerate(cameras):
            height, distance, angle = CAPTURE_POINTS[number]
            tracklet = root / folder / f"{person:04d}" / f"{person:04d}_{number:04d}"
            tracklet.mkdir(parents=True, exist_ok=True)
            head = f"{person:04d}_0_3_2_1_F"
            if camera:
                head = (
                    f"{person:04d}_23_10_2024_09_18_{height:g}_{distance:g}_{angle:g}"
                    f"_3_0_1_1_0_-1_-1_6_0_0_6_152_178_{camera}"
                )
            for frame in range(500):
                (tracklet / f"{head}_{frame:05d}.jpg").write_bytes(next(turn))
    whole.write_text(recipe)


def pillow_test(data: bytes) -> torch.Tensor:
    """The released test transform of one frame."""
    with Image.open(BytesIO(data)) as image:
        resized = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return TF.normalize(TF.to_tensor(resized), MEAN, STD)


def options(description: str) -> argparse.ArgumentParser:
    """A command line with the rounds and the folder of the tree."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=Path("resources/benchmark"))
    parser.add_argument("--rounds", type=int, default=5)
    return parser

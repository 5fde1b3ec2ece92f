"""From JPEGs on disk to batches: frames, loading processes, the index, the pack.

    python -m benchmarks.data frames|load|index|pack

`frames` (CPU time of one thread) and `index` compare with the released code written plainly:
Pillow and torchvision's per-image transforms; glob. All but `frames` write a tree of 200,000 JPEGs
(about 1 GB) into --scratch, once. Reads with nothing cached need root, to drop the caches.
"""

import os
import random
import shutil
import statistics
from collections.abc import Callable
from functools import partial
from glob import glob
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.measure import Call, command_line, compare, cost
from reid.config import Augment, Clip, ColorJitter
from reid.data import index, pack
from reid.data.augment import MEAN, STD, augment, normalize
from reid.data.dataset import TrackletDataset, decode, resize
from reid.data.frames import Files, Frames
from reid.data.loading import loader
from reid.data.packed import Packed
from reid.data.sampler import sequential_batches
from reid.data.stored import write_split
from reid.data.tracklet import CAPTURE_POINTS, FrameNames, Tracklet
from tests.trees import frame_name, make_tree

SIZE = HEIGHT, WIDTH = 256, 128
BANDS = ((12, 32), (32, 64), (64, 128), (128, 257), (12, 257))
"""Heights of crops: from, to below. The last is all of them."""
ASPECT = 0.35, 0.45
"""Width over height, as of real pedestrians (0.37 to 0.45 on average, by height)."""
CLIP, LENGTH = 16, 476
"""Frames of a clip, and of each of the 420 tracklets of the tree."""
FULL = (11_288, 1_041)
"""Tracklets of DetReIDX, and frames of each (mean)."""
PAPER = ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05)
BICUBIC = transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC)
TO_NETWORK = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
RELEASED = transforms.Compose(
    [BICUBIC, transforms.ColorJitter(0.1, 0.1, 0.1, 0.05), TO_NETWORK],
)


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


def grow(scratch: Path) -> tuple[Path, list[Tracklet]]:
    """A DetReIDX tree, made once, and its tracklets."""
    tree = scratch / "tree"
    if not (tree / "whole").exists():
        shutil.rmtree(scratch, ignore_errors=True)  # so that no pack of another tree stays
        make_tree(tree, train=20, test=10, tracklets=3, frames=1)
        turn = cycle(crops(2000, BANDS[-1], seed=1))
        for first in sorted(tree.rglob("*.jpg")):
            for frame in range(LENGTH):
                path = first.with_name(first.name.replace("_00000.", f"_{frame:05d}."))
                path.write_bytes(next(turn))
        (tree / "whole").touch()
    built = index.build(tree)
    built.write(scratch / "index")
    return tree, [tracklet for split in built.splits.values() for tracklet in split]


def frames(rounds: int, _: Path, count: int = 320) -> None:
    """Decode, resize and normalize by crop height, and the training transform."""
    out = torch.empty((CLIP, 3, *SIZE), dtype=torch.uint8)
    jitter = Augment(color_jitter=PAPER.model_copy(update={"place": "after_resize"}))

    def ours(encoded: list[bytes], finish: Callable[[torch.Tensor], object]) -> None:
        for start in range(0, count, CLIP):
            for number, data in enumerate(encoded[start : start + CLIP]):
                out[number] = resize(decode(data, name="generated"), *SIZE)
            finish(out)

    def released(encoded: list[bytes], transform: Callable[[Image.Image], object]) -> None:
        for data in encoded:
            with Image.open(BytesIO(data)) as image:
                transform(image.convert("RGB"))

    def train(clips: torch.Tensor) -> object:
        return augment(clips[None], options=jitter, seeds=[0])

    test = transforms.Compose([BICUBIC, TO_NETWORK])
    for band, finish, transform in [
        *((b, normalize, test) for b in BANDS),
        (BANDS[-1], train, RELEASED),
    ]:
        encoded = crops(count, band)
        calls: dict[str, Call] = {
            "reid": partial(ours, encoded, finish),
            "Pillow": partial(released, encoded, transform),
        }
        title = "training transform" if finish is train else f"{band[0]} to {band[1] - 1} px high"
        compare(title, calls, rounds, count=count)


def load(rounds: int, scratch: Path) -> None:
    """Frames of one loading process from files; CPU time of receiving them included."""
    tree, tracklets = grow(scratch)
    clip = Clip(frames=CLIP, height=HEIGHT, width=WIDTH)
    crop = PAPER.model_copy(update={"place": "on_crop"})
    batches = sequential_batches(len(tracklets), batch_size=24)
    options: dict[str, dict[str, Any]] = {
        "test clips": {"train": False},
        "training clips": {"train": True},
        "training clips, jitter on the crop": {"train": True, "color_jitter": crop},
    }

    def read(**options: Any) -> None:
        data = TrackletDataset(tracklets, tree, clip=clip, **options)
        for _ in loader(data, batches, workers=1):
            pass

    calls = {name: partial(read, **chosen) for name, chosen in options.items()}
    compare("one loading process", calls, rounds, count=len(tracklets) * CLIP)


def glob_loader(root: Path) -> list[list[str]]:
    """How the released loader lists a tree: glob and isdir at each level, one name parsed."""
    tracklets = []
    for folder in sorted(d for d in glob(f"{root}/**/*_*/", recursive=True) if os.path.isdir(d)):  # noqa: PTH112, PTH207
        paths = sorted(glob(f"{folder}*.jpg"))  # noqa: PTH207
        if paths:
            float(paths[0].split("_")[6] if paths[0].count("_") > 12 else 0)
            tracklets.append(paths)
    return tracklets


def write_full(path: Path) -> None:
    """An index of the size of DetReIDX; its files do not exist."""
    tracklets = []
    for number in range(FULL[0]):
        point, person = number % len(CAPTURE_POINTS), number // 31 + 1
        names = [frame_name(person, frame, camera=1, point=point + 1) for frame in range(FULL[1])]
        name = f"{person:04d}_{number:04d}"
        fields = (person, name, f"train/{person:04d}/{name}", "train", "aerial", 1, 1)
        tracklets.append(Tracklet(*fields, *CAPTURE_POINTS[point], FrameNames.of(names)))
    write_split(path, tracklets)


def listing(rounds: int, scratch: Path) -> None:
    """Index against glob; the size of an index of DetReIDX."""
    tree, tracklets = grow(scratch)
    count, full = sum(len(t.frames) for t in tracklets), scratch / "full.parquet"
    write_full(full)
    files = [scratch / "index" / f"{split}.parquet" for split in ("train", "A2G", "G2A", "A2A")]
    calls: dict[str, Call] = {
        "glob": partial(glob_loader, tree),
        "index, folders listed only": partial(index.build, tree, check_sizes=False),
        "index, every file looked at": partial(index.build, tree),
        "reload": lambda: [index.read_split(path) for path in files],
        "reload, 11.75 M frames": partial(index.read_split, full),
        "check of freshness": lambda: [index.check_fresh(tree, path) for path in files],
    }
    counts = dict.fromkeys(calls, count) | {"reload, 11.75 M frames": FULL[0] * FULL[1]}
    compare("listing, in files", calls, rounds, count=counts)
    print(f"\n{full.stat().st_size / 1e6:.1f} MB on disk")


def packed(rounds: int, scratch: Path) -> None:
    """Random frames from a pack against one file a frame, warm and not cached; packing; disk."""
    tree, tracklets = grow(scratch)
    folder, count = scratch / "pack", sum(len(t.frames) for t in tracklets)
    steps: dict[str, Call] = {
        "pack": lambda: pack.pack(tracklets, tree, folder, largest_shard=1 << 26),
        "verify": lambda: pack.verify(folder),
        "open": lambda: Packed(folder, tracklets),
    }
    compare("steps, in files", steps, 1, count=count, warm=False)
    sources: dict[str, Frames] = {"pack": Packed(folder, tracklets), "files": Files(tree)}

    def read(source: Frames, number: int, seed: int) -> None:
        rng = random.Random(seed)
        for tracklet in rng.choices(tracklets, k=number):
            positions = rng.sample(range(LENGTH), CLIP)
            source.expect(tracklet, positions)
            for position in positions:
                source.read(tracklet, position)

    calls: dict[str, Call] = {name: partial(read, s, 1000, 0) for name, s in sources.items()}
    compare("warm", calls, rounds, count=1000 * CLIP)
    if os.geteuid() == 0:
        ratios = []
        for number in range(rounds):
            walls = []
            for source in sources.values():
                Path("/proc/sys/vm/drop_caches").write_text("3")
                walls.append(cost(partial(read, source, 150, number)).wall)
            ratios.append(walls[1] / walls[0])
        print(f"\nnot cached: {statistics.median(ratios):.1f} x files by wall")
    used = [sum(path.stat().st_blocks * 512 for path in root.rglob("*")) for root in (folder, tree)]
    print(f"disk: {used[0] / used[1]:.0%} of one file a frame ({used[0] / 1e6:,.0f} MB)")


def main() -> None:
    """Print tables."""
    parser = command_line(__doc__, rounds=5)
    benchmarks = {"frames": frames, "load": load, "index": listing, "pack": packed}
    parser.add_argument("what", choices=list(benchmarks))
    parser.add_argument("--scratch", type=Path, default=Path("resources/benchmark"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    benchmarks[options.what](options.rounds, options.scratch)


if __name__ == "__main__":
    main()

"""From JPEGs to batches: decode and resize, the training transform, and what processes load.

    python -m benchmarks.loader

CPU time of one thread against Pillow and torchvision's per-image transforms, as the released code
has them; then frames/s of one loading process (CPU time of the process, transport included).
"""

import random
import resource
import time
from collections.abc import Sequence
from functools import partial

import torch
from torchvision import transforms

from benchmarks.frames import BANDS, CLIP, HEIGHT, WIDTH, crops, grow, options, pillow_test, race
from reid.config import Augment, Clip, ColorJitter
from reid.data import index
from reid.data.augment import augment, normalize
from reid.data.dataset import TrackletDataset
from reid.data.decode import decode, resize
from reid.data.loading import loader
from reid.data.sampler import sequential_batches

PAPER = ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05)
TRAIN = transforms.Compose(
    [
        transforms.ToPILImage(),
        transforms.Resize((HEIGHT, WIDTH), transforms.InterpolationMode.BICUBIC),
        transforms.ColorJitter(0.1, 0.1, 0.1, 0.05),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def ours(encoded: Sequence[bytes], out: torch.Tensor) -> torch.Tensor:
    """Decode and resize one clip into uint8 (T, 3, H, W), and normalize it."""
    for number, data in enumerate(encoded):
        out[number] = resize(decode(data, name="generated"), HEIGHT, WIDTH)
    return normalize(out)


def frames(rounds: int, count: int = 320) -> None:
    """Microseconds a frame by crop height, and of the training transform."""
    print("| frames | ours, us | Pillow, us | ratio |\n| --- | ---: | ---: | ---: |")
    out = torch.empty((CLIP, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    for band in BANDS:
        encoded = crops(count, band)
        clips = [encoded[start : start + CLIP] for start in range(0, count, CLIP)]
        result = race(
            lambda clips=clips: [ours(clip, out) for clip in clips],
            lambda encoded=encoded: [pillow_test(data) for data in encoded],
            rounds,
        )
        row(f"{band[0]}-{band[1] - 1} px high", result.ours, result.theirs, result.ratio, count)
    drawn = [Augment(color_jitter=PAPER.model_copy(update={"place": "after_resize"}))]

    def train() -> None:
        for seed, clip in enumerate(clips):
            ours(clip, out)
            augment(out[None], options=drawn[0], seeds=[seed])

    def released() -> None:
        for data in encoded:
            random.random()
            TRAIN(decode(data, name="generated"))

    result = race(train, released, rounds)
    row("training transform", result.ours, result.theirs, result.ratio, count)


def row(name: str, mine: float, theirs: float, ratio: float, count: int) -> None:
    """One row of the table."""
    print(f"| {name} | {mine / count * 1e6:.0f} | {theirs / count * 1e6:.0f} | {ratio:.1f} |")


def loading(dataset: TrackletDataset, rounds: int) -> float:
    """Frames a CPU second of a loading process, from files; the best of the rounds."""
    batches = sequential_batches(len(dataset), batch_size=24)
    best = 0.0
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        count = sum(batch.frames.shape[0] * CLIP for batch in loader(dataset, batches, workers=1))
        time.sleep(0.5)  # until the process is counted among the finished ones
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = max(best, count / spent)
    return best


def main() -> None:
    """Print Markdown tables."""
    arguments = options(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    frames(arguments.rounds)
    tree = arguments.scratch / "tree"
    grow(tree)
    tracklets = [t for split in index.build(tree).splits.values() for t in split]
    make = partial(
        TrackletDataset, tracklets, tree, clip=Clip(frames=CLIP, height=HEIGHT, width=WIDTH)
    )
    crop = PAPER.model_copy(update={"place": "on_crop"})
    for name, dataset in (
        ("test clips", make(train=False)),
        ("training clips", make(train=True)),
        ("training clips, jitter on the crop", make(train=True, color_jitter=crop)),
    ):
        rate = loading(dataset, arguments.rounds)
        print(f"\n{name}: {rate:,.0f} frames/s a loading process")


if __name__ == "__main__":
    main()

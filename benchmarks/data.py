"""The data path against plain Pillow and against its own limits, side by side in one run.

    python benchmarks/data.py decode       decode + bicubic resize + normalise, by crop height
    python benchmarks/data.py augment      the training transform

Only ratios are meant: both sides alternate in one process on one core, the figure is the median
of the ratios of CPU time over the rounds. "Pillow" is the path of the released code written
plainly: open, convert, resize, per-frame transforms, to tensor, normalise.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from reid.config import Augment, ColorJitter
from reid.data.augment import MEAN, STD, augment, normalise
from reid.data.decode import decode_into
from reid.data.resize import prepare

HEIGHT, WIDTH = 256, 128
BANDS = ((12, 32), (32, 64), (64, 128), (128, 257), (12, 257))
CLIP = 16
PAPER = Augment(color_jitter=ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05))


def crops(count: int, band: tuple[int, int], seed: int = 0) -> list[bytes]:
    """JPEGs with heights log-uniform over `band`, person-shaped, textured and noisy."""
    rng = np.random.default_rng(seed)
    encoded = []
    for height in np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), count)).astype(int):
        width = max(4, int(height * rng.uniform(0.4, 0.55)))
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        stream = BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


def race(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[float, float, float]:
    """Median CPU seconds of both and median ratio theirs / ours, alternating."""
    ours(), theirs()
    pairs = []
    for _ in range(rounds):
        start = time.process_time()
        theirs()
        middle = time.process_time()
        ours()
        pairs.append((time.process_time() - middle, middle - start))
    return (
        statistics.median(own for own, _ in pairs),
        statistics.median(other for _, other in pairs),
        statistics.median(other / own for own, other in pairs),
    )


def pillow_test(data: bytes) -> torch.Tensor:
    """The released test transform of one frame."""
    with Image.open(BytesIO(data)) as image:
        resized = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return TF.normalize(TF.to_tensor(resized), MEAN, STD)


class PillowTrain:
    """The released training transform of a clip."""

    jitter = transforms.ColorJitter(0.1, 0.1, 0.1, 0.05)

    def __call__(self, clip: Sequence[bytes]) -> torch.Tensor:
        """Frames (T, 3, H, W)."""
        flip, erase = random.random() < 0.5, random.random() < 0.5
        frames = []
        for data in clip:
            with Image.open(BytesIO(data)) as image:
                resized = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            jittered = self.jitter(resized)
            if flip:
                jittered = jittered.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            frame = TF.normalize(TF.to_tensor(jittered), MEAN, STD)
            if erase:
                frame[:, 40:100, 20:80] = 0.45
            frames.append(frame)
        return torch.stack(frames)


def load(encoded: Sequence[bytes], out: torch.Tensor) -> None:
    """Our decode and resize of frames into uint8 (T, 3, H, W)."""
    pixels = out.numpy()
    for slot, data in enumerate(encoded):
        decode_into(data, pixels[slot], decoder="fast", name="generated")


def decode(rounds: int, count: int) -> None:
    """Frames/s a core by crop height, ratio to Pillow, and the largest difference."""
    print("| crop height | ours, frames/s | Pillow, frames/s | ratio | decode only | max diff |")
    print("| --- | --- | --- | --- | --- | --- |")
    batch = torch.empty((CLIP, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    for band in BANDS:
        encoded = crops(count, band)
        clips = [encoded[start : start + CLIP] for start in range(0, count, CLIP)]

        def ours(clips: list[list[bytes]] = clips) -> None:
            for clip in clips:
                load(clip, batch)
                normalise(batch)

        def theirs(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                pillow_test(data)

        def floor(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                simplejpeg.decode_jpeg(data)

        own, other, ratio = race(ours, theirs, rounds)
        limit = race(floor, floor, rounds)[0]
        load(clips[0], batch)
        expected = torch.stack([pillow_test(data) for data in clips[0]])
        difference = (normalise(batch) - expected).abs().max()
        print(
            f"| {band[0]}-{band[1] - 1} | {count / own:,.0f} | {count / other:,.0f} | {ratio:.1f} "
            f"| {count / limit:,.0f} | {difference:.1e} |"
        )


def augmentation(rounds: int, count: int) -> None:
    """The whole training transform of clips of 16 frames, mixed heights."""
    encoded = crops(count, BANDS[-1])
    clips = [encoded[start : start + CLIP] for start in range(0, count, CLIP)]
    batch = torch.empty((1, CLIP, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    pillow = PillowTrain()

    def ours() -> None:
        for seed, clip in enumerate(clips):
            load(clip, batch[0])
            augment(batch, options=PAPER, seeds=[seed])

    def theirs() -> None:
        for clip in clips:
            pillow(clip)

    own, other, ratio = race(ours, theirs, rounds)
    print("| training transform | ours, frames/s | Pillow, frames/s | ratio |")
    print("| --- | --- | --- | --- |")
    print(f"| mixed heights | {count / own:,.0f} | {count / other:,.0f} | {ratio:.1f} |")


def main() -> None:
    """Run the parts named on the command line (default: all)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"decode": decode, "augment": augmentation}
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=320, help="frames a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare(HEIGHT, WIDTH)
    for name in arguments.parts or parts:
        parts[name](arguments.rounds, arguments.frames)
        print()


if __name__ == "__main__":
    main()

"""Decoding, resizing and augmenting frames against plain Pillow, on one thread.

    python -m benchmarks.decode

Decode + bicubic resize + normalize by crop height, then the training transform of whole clips.
"""

import argparse
import random
from collections.abc import Sequence
from io import BytesIO

import simplejpeg
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from benchmarks.frames import BANDS, CLIP, HEIGHT, WIDTH, crops, pillow_test, race
from reid.config import Augment, ColorJitter
from reid.data.augment import augment
from reid.data.decode import decode_into
from reid.data.normalize import MEAN, STD, normalize
from reid.data.resize import prepare

PAPER = Augment(color_jitter=ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05))


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
                normalize(batch)

        def theirs(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                pillow_test(data)

        def floor(encoded: list[bytes] = encoded) -> None:
            for data in encoded:
                simplejpeg.decode_jpeg(data)

        result = race(ours, theirs, rounds)
        limit = race(floor, floor, rounds).ours
        load(clips[0], batch)
        expected = torch.stack([pillow_test(data) for data in clips[0]])
        difference = (normalize(batch) - expected).abs().max()
        print(
            f"| {band[0]}-{band[1] - 1} | {count / result.ours:,.0f} "
            f"| {count / result.theirs:,.0f} | {result.ratio:.1f} "
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

    result = race(ours, theirs, rounds)
    print("| training transform | ours, frames/s | Pillow, frames/s | ratio |")
    print("| --- | --- | --- | --- |")
    print(
        f"| mixed heights | {count / result.ours:,.0f} | {count / result.theirs:,.0f} "
        f"| {result.ratio:.1f} |"
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=320, help="frames a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare(HEIGHT, WIDTH)
    decode(arguments.rounds, arguments.frames)
    print()
    augmentation(arguments.rounds, arguments.frames)


if __name__ == "__main__":
    main()

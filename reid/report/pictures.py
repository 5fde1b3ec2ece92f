"""Pictures of tracklets, small and inside the page; heads are blurred unless told otherwise."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from reid.config import Clip, Dataset, Runtime
from reid.data.dataset import decode
from reid.data.frames import Files, Frames
from reid.data.packed import Packed
from reid.data.sampler import sample_frames
from reid.data.tracklet import Tracklet

Faces = Literal["blur", "keep"]

HEAD = 0.22
"""Share of a crop's height, from the top, where a standing person's head is."""
CELL = (56, 112)
"""Width and height of a frame in a picture, pixels: the shape that the network sees."""


@dataclass(frozen=True)
class Picture:
    """A JPEG as an address that holds it."""

    uri: str
    width: int
    height: int


class Album:
    """Frames of tracklets as the network is given them at test, and pictures of them."""

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        dataset: Dataset,
        runtime: Runtime,
        clip: Clip,
        faces: Faces,
    ) -> None:
        """Raises UserError when the pack does not hold these tracklets."""
        pack = runtime.pack
        self._stored: Frames = Files(dataset.root) if pack is None else Packed(pack, tracklets)
        self._clip = clip
        self._faces = faces

    def frames(self, tracklet: Tracklet) -> list[np.ndarray]:
        """The T frames of a test clip, uint8 (h, w, 3) as stored. Heads are as they are.

        Raises UserError naming a frame that is missing or damaged.
        """
        positions = sample_frames(
            len(tracklet.frames), self._clip.frames, test=self._clip.test_sampling
        ).tolist()
        self._stored.expect(tracklet, positions)
        return [
            decode(self._stored.read(tracklet, p), name=self._stored.name(tracklet, p))
            .permute(1, 2, 0)
            .numpy()
            for p in positions
        ]

    def strip(self, tracklet: Tracklet, most: int) -> Picture:
        """At most `most` frames of a test clip side by side, evenly chosen."""
        frames = self.frames(tracklet)
        places = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
        return self.picture([frames[place] for place in places])

    def picture(self, frames: Sequence[np.ndarray]) -> Picture:
        """Frames (h, w, 3) of any size side by side, each as a cell."""
        sheet = Image.new("RGB", (len(frames) * CELL[0], CELL[1]))
        for place, frame in enumerate(frames):
            shown = Image.fromarray(hide_head(frame) if self._faces == "blur" else frame)
            sheet.paste(shown.resize(CELL, Image.Resampling.BICUBIC), (place * CELL[0], 0))
        data = io.BytesIO()
        sheet.save(data, "JPEG", quality=80)
        encoded = base64.b64encode(data.getvalue()).decode("ascii")
        return Picture(f"data:image/jpeg;base64,{encoded}", *sheet.size)


def hide_head(frame: np.ndarray) -> np.ndarray:
    """A copy of uint8 (h, w, 3) whose top is blurred down to two colors, left and right.

    It hides a face where the crop is a standing person. It is no guarantee of anonymity: seen from
    above or bent, the head may be elsewhere, and clothes and gait stay.
    """
    rows = math.ceil(HEAD * len(frame))
    hidden = frame.copy()
    head = Image.fromarray(hidden[:rows])
    colors = head.resize((min(2, head.width), 1), Image.Resampling.BOX)
    hidden[:rows] = np.asarray(colors.resize(head.size, Image.Resampling.BILINEAR))
    return hidden


def sharpness(frame: np.ndarray, clip: Clip) -> float:
    """Variance of the Laplacian of the gray frame at the size that the network sees.

    frame: uint8 (h, w, 3). Blur and few pixels both make it small.
    """
    gray = Image.fromarray(frame).convert("L")
    sized = gray.resize((clip.width, clip.height), Image.Resampling.BICUBIC)
    pixels = np.asarray(sized, np.float32)
    inner = pixels[1:-1, 1:-1]
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * inner).var())

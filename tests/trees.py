"""Small generated datasets in the DetReIDX layout, for tests of any part."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.data.tracklet import CAPTURE_POINTS

EXPERIMENT = {
    "backbones": {"b": {"weights": "none.safetensors"}},
    "trainings": {"t": {"backbone": "b", "clip": {"frames": 3, "height": 16, "width": 8}}},
    "variants": {"v": {"training": "t", "label": "v"}},
}
"""Sections that a configuration needs, for commands that read only its dataset."""


def frame_name(
    identity: int, frame: int, *, camera: int, point: int = 1, spelling: str = "", minute: int = 18
) -> str:
    """File name of a frame; `spelling` comes before the session number ("" or "S")."""
    if camera == 0:
        return f"{identity:04d}_0_3_2_1_F_{frame:05d}.jpg"
    height, distance, angle = (f"{value:g}" for value in CAPTURE_POINTS[point - 1])
    return (
        f"{identity:04d}_23_10_2024_09_{minute:02d}_{height}_{distance}_{angle}"
        f"_3_0_1_1_0_-1_-1_6_0_0_6_152_178_{spelling}{camera}_{frame:05d}.jpg"
    )


def write_frame(path: Path, *, seed: int, height: int | None = None) -> None:
    """A smooth random JPEG, `height` pixels (default: 8 to 40) by about half of it."""
    rng = np.random.default_rng(seed)
    height = height or int(rng.integers(8, 41))
    coarse = rng.integers(0, 256, size=(4, 3, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((max(1, height // 2), height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def write_tracklet(
    folder: Path,
    identity: int,
    *,
    camera: int,
    frames: int = 3,
    point: int = 1,
    spelling: str = "",
    height: int | None = None,
) -> Path:
    """A folder of `frames` random JPEGs of one identity from one camera."""
    for frame in range(frames):
        name = frame_name(identity, frame, camera=camera, point=point, spelling=spelling)
        seed = ((identity * 3 + camera) * 20 + point) * 1000 + frame
        write_frame(folder / name, seed=seed, height=height)
    return folder


def make_tree(
    root: Path,
    *,
    train: int = 2,
    test: int = 2,
    tracklets: int = 1,
    frames: int = 3,
    protocols: Sequence[str] = ("A2G", "G2A", "A2A"),
) -> Path:
    """A whole dataset: identities 1..train, then train+1..train+test in every protocol.

    Each identity has `tracklets` tracklets of `frames` frames from each of the three cameras
    (one spelling of the session each); a protocol's gallery has the cameras its query lacks.
    """

    def person(folder: Path, identity: int, cameras: Sequence[int]) -> None:
        for camera in cameras:
            for number in range(tracklets):
                write_tracklet(
                    folder / f"{identity:04d}" / f"{identity:04d}_{camera * 100 + number:04d}",
                    identity,
                    camera=camera,
                    frames=frames,
                    point=1 + (identity + number) % len(CAPTURE_POINTS),
                    spelling="S" if camera == 1 else "",
                )

    for identity in range(1, train + 1):
        person(root / "train", identity, (0, 1, 2))
    sides = {"A2G": ((1, 2), (0,)), "G2A": ((0,), (1, 2)), "A2A": ((1,), (2,))}
    for protocol in protocols:
        folder = root / PROTOCOL_FOLDERS[protocol]
        for identity in range(train + 1, train + test + 1):
            person(folder / "query", identity, sides[protocol][0])
            person(folder / "gallery", identity, sides[protocol][1])
    return root

"""The record of a tracklet, and the names of its frames at a few bytes each."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import pyarrow as pa

Subset = Literal["train", "query", "gallery"]
View = Literal["ground", "aerial"]

PROTOCOL_VIEWS: dict[str, tuple[View, View] | None] = {
    "A2G": ("aerial", "ground"),
    "G2A": ("ground", "aerial"),
    "A2A": ("aerial", "aerial"),
    "G2G": ("ground", "ground"),
    "ALL": None,
}
"""Views of queries and gallery by protocol; None: every tracklet takes part."""

CAPTURE_POINTS = (
    *((5.8, 10.0, 30.0), (11.5, 20.0, 30.0), (17.3, 30.0, 30.0)),
    *((23.1, 40.0, 30.0), (40.0, 80.0, 30.0), (60.0, 120.0, 30.0)),
    *((15.0, 10.0, 60.0), (30.0, 20.0, 60.0), (45.0, 30.0, 60.0)),
    *((60.0, 40.0, 60.0), (75.0, 80.0, 60.0), (90.0, 120.0, 60.0)),
    *((10.0, 0.0, 90.0), (20.0, 0.0, 90.0), (30.0, 0.0, 90.0)),
    *((40.0, 0.0, 90.0), (80.0, 0.0, 90.0), (120.0, 0.0, 90.0)),
)
"""The 18 aerial capture points of DetReIDX (altitude m, horizontal distance m, angle degrees)."""


class Scene(NamedTuple):
    """What all frames of a tracklet have in common; None: unknown."""

    view: View | None
    camera: int
    session: int | None = None
    altitude: float | None = None
    distance: float | None = None
    angle: float | None = None


class FrameNames(Sequence[str]):
    """File names in order. Their common prefix and suffix are stored once, the rest in Arrow.

    11.75 million Python strings would take 1.5 GB in every process. Equal to any sequence of the
    same names.
    """

    __slots__ = ("middles", "prefix", "suffix")

    def __init__(self, prefix: str, middles: Any, suffix: str) -> None:
        """`middles`: a pyarrow string array. Use `of` for a list of names."""
        self.prefix, self.middles, self.suffix = prefix, middles, suffix

    @classmethod
    def of(cls, names: Sequence[str]) -> "FrameNames":
        """Store any names, in their order. Raises UnicodeEncodeError on one that is not UTF-8."""
        if isinstance(names, cls):
            return names
        suffix = os.path.splitext(names[0])[1] if names else ""  # noqa: PTH122
        if not all(name.endswith(suffix) for name in names):
            suffix = ""
        stems = [name.removesuffix(suffix) for name in names]
        prefix = os.path.commonprefix(stems)  # noqa: RUF071
        middles = pa.array([stem[len(prefix) :] for stem in stems], pa.string())
        return cls(prefix, middles, suffix)

    def digest(self) -> str:
        """SHA-256 of all names, hex."""
        text = "\n".join([self.prefix, self.suffix, *self.middles.to_pylist()])
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.middles)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        if isinstance(key, slice):
            return list(FrameNames(self.prefix, self.middles[key], self.suffix))
        return f"{self.prefix}{self.middles[key].as_py()}{self.suffix}"

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}{middle}{self.suffix}" for middle in self.middles.to_pylist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameNames.of, (list(self),)  # not the whole buffer that `middles` is a slice of

    def __repr__(self) -> str:
        return f"FrameNames({list(self)})"


@dataclass(frozen=True, slots=True)
class Tracklet:
    """Frames of one person, seen by one camera without interruption.

    What a layout does not tell is None or NaN.
    """

    identity: int
    name: str
    path: str
    """Unique in its dataset, with forward slashes. In most layouts the folder of the frames."""
    subset: Subset
    view: View | None
    camera: int
    """From 0; `reid.data.stored.count_cameras` says how many there are."""
    session: int | None
    altitude: float
    """Meters."""
    distance: float
    """Horizontal, meters."""
    angle: float
    """Degrees."""
    frames: Sequence[str]
    """File names in order of time."""
    in_folder: str = ""
    """Folder of the frames, relative to the dataset root, where a list names them; empty: they are
    all that `path` holds."""
    size: int | None = None
    """Bytes of all frames when indexed; None when files were not looked at."""

    @property
    def folder(self) -> str:
        """Folder of the frames, relative to the dataset root."""
        return self.in_folder or self.path

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def has_metadata(self) -> bool:
        """Whether altitude, distance and angle are known."""
        return not math.isnan(self.altitude)

    @property
    def capture_point(self) -> int | None:
        """1..18 as in CAPTURE_POINTS (0.1 tolerance); None elsewhere and on the ground."""
        measured = (self.altitude, self.distance, self.angle)
        for number, point in enumerate(CAPTURE_POINTS, start=1):
            if all(abs(a - b) < 0.1 for a, b in zip(measured, point, strict=True)):
                return number
        return None


def identity_of(tracklet: Tracklet) -> tuple[str, int | None, str]:
    """What tells one indexed tracklet from another: path, bytes, hash of frame names."""
    return tracklet.path, tracklet.size, FrameNames.of(tracklet.frames).digest()

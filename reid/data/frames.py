"""Frames as files: the one listing of a tracklet's folder, and reading them."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.files import read_regular

IGNORED = "of the system, ignored"
"""Reason for files that systems put into folders: they are no part of the dataset."""
FOLDER = "folder inside a tracklet folder"
NOT_UTF8, EMPTY = "name is not UTF-8", "zero bytes"
SPECIAL, UNREADABLE = "not a file, or a broken link", "cannot be read"

LARGEST_FRAME = 1 << 26  # bytes

_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"}
_DIGITS = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Listing:
    """What is in the folder of a tracklet."""

    modified: int
    """When the folder last changed: ns since the epoch, taken before it was read."""
    frames: dict[str, int | None] = field(default_factory=dict)
    """Usable frames in natural order, with their bytes (None: not looked at)."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reasons by name of what is no usable frame."""


def list_folder(folder: Path | str, *, check_sizes: bool) -> Listing:
    """List frames in natural order. `check_sizes` looks at each file. Raises UserError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listing = Listing(os.fstat(descriptor).st_mtime_ns)
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    _sort_in(entry, listing, check_sizes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    sizes = listing.frames
    ordered = {name: sizes[name] for name in natural_order(list(sizes))}
    return Listing(listing.modified, ordered, listing.problems)


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or one that systems put anywhere."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _sort_in(entry: "os.DirEntry[str]", listing: Listing, check_sizes: bool) -> None:
    """Put one entry of a folder among the frames or the problems of `listing`."""
    name, size = entry.name, None
    try:
        if is_ignored(name):
            reason = IGNORED
        elif not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            reason = NOT_UTF8
        elif not is_jpeg(name):
            reason = FOLDER if entry.is_dir() else "not a .jpg file"
        elif not entry.is_file():
            reason = FOLDER if entry.is_dir() else SPECIAL
        elif check_sizes and not (size := entry.stat().st_size):
            reason = EMPTY
        else:
            listing.frames[name] = size
            return
    except OSError as error:
        reason = f"{UNREADABLE}: {error.strerror}"
    listing.problems[name] = reason


def natural_order(names: Sequence[str]) -> list[str]:
    """Names sorted as people count: numbers by value, text whatever its case."""
    prefix = os.path.commonprefix(names)  # noqa: RUF071
    start = len(prefix.rstrip("0123456789"))  # what all share needs no comparison

    def key(name: str) -> tuple[list[str | int], str]:
        # Text and numbers in turn, text first: no comparison is of text with a number.
        parts = _DIGITS.split(name[start:])
        return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts)], name

    return sorted(names, key=key)


def folders_with_frames(root: Path, _above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Folders at and below `root` that hold frames, in natural order; links are followed.

    A link to a folder above itself is left out. Raises UserError.
    """
    listing = list_folder(root, check_sizes=False)
    if listing.frames:
        yield root
    real = (*_above, os.path.realpath(root))
    for name in natural_order([n for n, why in listing.problems.items() if why == FOLDER]):
        if os.path.realpath(root / name) not in real:
            yield from folders_with_frames(root / name, real)


_JPEG = (".jpg", ".jpeg")
_OTHER_IMAGES = (".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def is_jpeg(name: str) -> bool:
    """Whether a file name is that of a JPEG."""
    return name.lower().endswith(_JPEG)


def is_image(name: str) -> bool:
    """Whether a file name is that of a JPEG, or of an image that must be converted to one."""
    return name.lower().endswith(_JPEG + _OTHER_IMAGES)


class Frames(Protocol):
    """Reads the stored bytes of one frame; the same bytes whatever the storage."""

    def expect(self, tracklet: Tracklet, positions: Sequence[int]) -> None:
        """Say which frames will be read next."""

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """JPEG of the frame at `position`. Raises UserError when it is missing or damaged."""

    def name(self, tracklet: Tracklet, position: int) -> str:
        """What to call this frame in an error."""


class Files:
    """One file a frame."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def expect(self, tracklet: Tracklet, positions: Sequence[int]) -> None:
        """Nothing: separate files gain nothing by it."""

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """Read the file. Raises UserError when it is missing, unreadable or not a regular one."""
        name = self.name(tracklet, position)
        try:
            return read_regular(Path(name), LARGEST_FRAME)
        except FileNotFoundError:
            raise UserError(f"{name} is missing: bring it back or run `reid index` again") from None
        except OSError as error:
            raise UserError(f"{name} cannot be read ({error.strerror})") from None

    def name(self, tracklet: Tracklet, position: int) -> str:
        """Path of the file."""
        return str(self.root / tracklet.folder / tracklet.frames[position])

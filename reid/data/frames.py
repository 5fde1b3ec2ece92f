"""Where the bytes of frames come from: files under the dataset root, or a pack of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reid.data.layout import Tracklet
from reid.errors import UserError


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
        """Nothing: files of their own gain nothing by it."""

    def read(self, tracklet: Tracklet, position: int) -> bytes:
        """Read the file. Raises UserError when it is missing or unreadable."""
        name = self.name(tracklet, position)
        try:
            return Path(name).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{name} is missing: bring it back or run `reid index` again") from None
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}") from None

    def name(self, tracklet: Tracklet, position: int) -> str:
        """Path of the file."""
        return str(self.root / tracklet.folder / tracklet.frames[position])

"""The metrics journal: one JSON line per step, cut back exactly on resume."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.errors import Unresumable


class Journal:
    """Appends JSON lines. Values must be reproducible: no times, rates or host names."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Open for writing after the first `offset` bytes; what follows them is dropped.

        Raises Unresumable when the file is shorter than that.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.exists() else "w+b")
        length = self._file.seek(0, os.SEEK_END)
        if length < offset:
            checkpoints = path.parent / "checkpoints" / path.stem
            raise Unresumable(
                f"{path} has {length} bytes, fewer than the {offset} of the checkpoint to resume "
                f"from: restore it, or begin again: delete {checkpoints} and start as "
                "you did"
            )
        self._file.truncate(offset)
        self._file.seek(offset)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        self._file.write(json.dumps(_finite(record)).encode() + b"\n")

    def sync(self) -> int:
        """Put everything on disk and return the length in bytes, to be kept in a checkpoint."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self.sync()
        self._file.close()


def _finite(value: Any) -> Any:
    """Infinite and NaN numbers (fp16 overflow in a gradient) as null: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The journal: metrics of every step as JSON lines, cut back exactly on resume, and curves."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.errors import Unresumable


class Journal:
    """Appends records to `<stage>.jsonl`. Values must be reproducible: no times, no host names."""

    def __init__(
        self, folder: Path, stage: str, *, offset: int = 0, curves_from: int | None = None
    ) -> None:
        """Open for writing after the first `offset` bytes; what follows them is dropped.

        `curves_from`: also draw TensorBoard curves from this step on, and drop later ones.
        Raises Unresumable when the file is shorter than `offset`.
        """
        path = folder / f"{stage}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.exists() else "w+b")
        length = self._file.seek(0, os.SEEK_END)
        if length < offset:
            raise Unresumable(
                f"{path} has {length} bytes, fewer than the {offset} of the checkpoint to resume "
                f"from: restore it, or begin again: delete {folder / 'checkpoints' / stage} and "
                "start as you did"
            )
        self._file.truncate(offset)
        self._file.seek(offset)
        self._curves = None
        if curves_from is not None:
            # Imported here because it is slow and only a training draws curves.
            from torch.utils.tensorboard import SummaryWriter

            curves = str(folder / "tensorboard" / stage)
            self._curves = SummaryWriter(curves, purge_step=curves_from)

    def write(self, record: Mapping[str, Any], step: int) -> None:
        """Append a record and draw its numbers at a step, counted from the start of training."""
        self._file.write(json.dumps(_finite(record)).encode() + b"\n")
        self._file.flush()  # nothing may reach the file after another trainer has taken over
        self.draw(record, step)

    def draw(self, record: Mapping[str, Any], step: int, prefix: str = "") -> None:
        """Draw the floats of a record, nested ones under their path, and write nothing."""
        for name, value in record.items() if self._curves else ():
            if isinstance(value, Mapping):
                self.draw(value, step, f"{prefix}{name}/")
            elif isinstance(value, float) and self._curves:
                self._curves.add_scalar(f"{prefix}{name}", value, step)

    def sync(self) -> int:
        """Put everything on disk and return the length in bytes, to be kept in a checkpoint."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self.sync()
        self._file.close()
        if self._curves:
            self._curves.close()


def _finite(value: Any) -> Any:
    """Infinite and NaN numbers (fp16 overflow in a gradient) as null, which JSON lacks."""
    if isinstance(value, Mapping):
        return {name: _finite(nested) for name, nested in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

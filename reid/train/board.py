"""Training curves for TensorBoard; the JSONL files are the source of truth."""

from collections.abc import Mapping
from pathlib import Path


class Board:
    """Writes scalars as TensorBoard events from step `begin` on; later ones are purged."""

    def __init__(self, folder: Path, begin: int) -> None:
        # Slow to import, and wanted by the training process only.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=begin)

    def draw(self, step: int, values: Mapping[str, object], prefix: str = "") -> None:
        """Draw the numbers in `values`, nested ones under their path, at a step."""
        for name, value in values.items():
            if isinstance(value, Mapping):
                self.draw(step, value, f"{prefix}{name}/")
            elif isinstance(value, float):
                self._writer.add_scalar(f"{prefix}{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

"""The list of damaged frames that `reid check` writes and `reid index` leaves out."""

import csv
from pathlib import Path

from reid.errors import UserError


def read_damaged(path: Path) -> dict[str, str]:
    """Reasons by path of frames to leave out, from a `damaged.csv`. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            return {row["path"]: f"damaged: {row['reason']}" for row in csv.DictReader(opened)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise UserError(
            f"{path} (dataset.damaged) is not a damaged.csv of `reid check` ({error!r})"
        ) from None

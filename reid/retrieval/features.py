"""Features of a split as `reid extract` wrote them, and how a variant uses them (Sec. 3.2.5)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reid.errors import UserError

Floats = NDArray[np.float32]


def read(path: Path, *, rows: int, flip_tta: bool) -> Floats:
    """Raw features (rows, D) float32; with `flip_tta` the mean with those of the mirrored clips.

    Raises UserError when the file is missing, damaged, lacks the mirrored features, has not one
    row per tracklet of the index, or holds values that are not finite.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            names = set(opened.keys())
            if flip_tta and "flipped" not in names:
                raise UserError(f"{path} lacks the features of mirrored clips: run `reid extract`")
            features: Floats = opened.get_tensor("features")
            if flip_tta:
                features = (features + opened.get_tensor("flipped")) / np.float32(2)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid extract`") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): run `reid extract` again") from None
    if len(features) != rows:
        raise UserError(
            f"{path} has {len(features)} rows, the index {rows} tracklets: run `reid extract` again"
        )
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(f"{path}: features of row {int(finite.argmin())} are not finite")
    return features


def heights(path: Path) -> Floats | None:
    """(rows,) median pixel height of the crops, where the file has it."""
    with safe_open(path, framework="numpy") as opened:
        found: Floats | None = None
        if "heights" in set(opened.keys()):
            found = opened.get_tensor("heights")
        return found


def l2_normalised(features: Floats) -> Floats:
    """Rows scaled to unit length; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features))
    lengths[lengths == 0] = 1
    scaled: Floats = features / lengths[:, None]
    return scaled

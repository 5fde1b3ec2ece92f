"""The features file of a split, and how a variant uses it (Sec. 3.2.5).

`reid extract` writes it. It holds `features` (n, D), raw and in the order of the index; `flipped`
(n, D), those of the mirrored clips, when a variant averages both; `heights` (n,), the median pixel
height of the crops; and `frame_weights` (n, 2, T), of a training with temporal attention, the
alpha_t of both pools (Eq. 3).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reid.errors import UserError
from reid.files import demand_regular

Floats = NDArray[np.float32]


def read_features(path: Path, *, rows: int, flip_tta: bool) -> Floats:
    """Raw features (rows, D) float32; with `flip_tta` the mean with those of the mirrored clips.

    Raises UserError when the file is missing, damaged, lacks the mirrored features, does not have
    one row for each tracklet of the index, or holds values that are not finite.
    """
    tensors = _read(path, ("features", "flipped") if flip_tta else ("features",))
    if "features" not in tensors:
        raise UserError(f"{path} holds no features: run `reid extract` again")
    if flip_tta and "flipped" not in tensors:
        raise UserError(f"{path} lacks the features of mirrored clips: run `reid extract`")
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape != tensors["features"].shape:
            raise UserError(
                f"{path}: {name} have shape {tensor.shape}, expected (tracklets, size) as "
                "features: run `reid extract` again"
            )
        if len(tensor) != rows:
            raise UserError(
                f"{path} has {len(tensor)} rows, the index {rows} tracklets: run `reid extract` "
                "again"
            )
        finite = np.isfinite(tensor).all(axis=1)
        if not finite.all():
            raise UserError(f"{path}: {name} of row {int(finite.argmin())} are not finite")
    features: Floats = tensors["features"]
    return (features + tensors["flipped"]) / np.float32(2) if flip_tta else features


def read_heights(path: Path, *, rows: int) -> Floats | None:
    """(rows,) median pixel height of the crops, None if the file does not have it.

    Raises UserError when the file is missing or damaged, or they are not positive numbers.
    """
    heights = _read(path, ("heights",)).get("heights")
    if heights is not None and (heights.shape != (rows,) or not (heights > 0).all()):
        raise UserError(f"{path}: not {rows} positive heights: run `reid extract` again")
    return heights


def _read(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Those of the named tensors that a file has. Raises UserError when it cannot be read."""
    try:
        demand_regular(path)
        with safe_open(path, framework="numpy") as file:
            stored = set(file.keys())
            return {name: file.get_tensor(name) for name in names if name in stored}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid extract`") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): run `reid extract` again") from None

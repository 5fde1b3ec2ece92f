"""Inner products of feature rows in blocks: by NumPy, or by torch where it is loaded anyway."""

from collections.abc import Callable
from typing import Any

import numpy as np

from reid.errors import UserError
from reid.features.features import Floats

WORTH_A_GPU = 20_000
"""Rows from which on a GPU, when it may choose itself, is worth importing torch for."""

TorchProduct = Callable[[slice, slice], Any]
"""(rows, columns) -> tensor of their inner products."""


class Products:
    """Products of rows of one (N, D) float32 array with rows of it."""

    def __init__(self, features: Floats, device: str | None = None) -> None:
        """device: a torch device such as `cuda`; None multiplies on the CPU by NumPy."""
        self.features = features
        self._by_torch: TorchProduct | None = None
        if device is not None:
            self._by_torch = _on_device(features, device)

    def __call__(self, rows: slice, columns: slice) -> Floats:
        """features[rows] @ features[columns].T, float32, in an array of its own."""
        if self._by_torch is not None:
            product: Floats = self._by_torch(rows, columns).numpy(force=True)
        else:
            product = np.matmul(self.features[rows], self.features[columns].T)
        return product


def _on_device(features: Floats, device: str) -> TorchProduct:
    import torch

    try:
        tensor = torch.from_numpy(features).to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {device!r} cannot hold the features: {reason}") from None
    return lambda rows, columns: tensor[rows] @ tensor[columns].T


def device_for(choice: str, rows: int) -> str | None:
    """The device of the products by `runtime.device`: `auto` takes a GPU for many rows."""
    if choice == "cpu" or (choice == "auto" and rows < WORTH_A_GPU):
        return None
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if choice == "cuda":
        raise UserError("runtime.device is cuda but torch sees no GPU here: use auto or cpu")
    return None

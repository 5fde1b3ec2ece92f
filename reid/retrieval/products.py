"""Inner products of feature rows in blocks: by NumPy, or on an accelerator by torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from reid.errors import UserError
from reid.retrieval.features import Floats
from reid.retrieval.threads import one_thread_per_product

WORTH_A_GPU = 20_000
"""Rows from which on a GPU, when it may choose itself, is worth importing torch for."""


class Products:
    """Products of rows of one (N, D) float32 array with rows of it."""

    def __init__(self, features: Floats, device: str | None = None) -> None:
        """device: a torch device such as `cuda`; None multiplies with NumPy on the CPU."""
        self.features = features
        self._on_device: Any = None
        if device is not None:
            import torch

            try:
                self._on_device = torch.from_numpy(features).to(device)
            except (RuntimeError, AssertionError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"device {device!r} cannot hold the features: {reason}") from None

    def __call__(self, rows: slice, columns: slice, out: Floats) -> None:
        """Fill `out` with features[rows] @ features[columns].T, in float32."""
        if self._on_device is None:
            np.matmul(self.features[rows], self.features[columns].T, out=out)
            return
        import torch

        product = self._on_device[rows] @ self._on_device[columns].T
        torch.from_numpy(out).copy_(product)

    @contextmanager
    def in_own_threads(self) -> Iterator[None]:
        """For callers that run several products at the same time in threads of their own."""
        if self._on_device is None:
            with one_thread_per_product():
                yield
        else:
            yield


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

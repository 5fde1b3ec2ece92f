"""Distances between features, by blocked matrix products on the CPU or on a GPU."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.features.features import Floats

ROWS = 512
"""Rows of a block of products."""

WORTH_A_GPU = 20_000
"""Number of rows from which `runtime.device: auto` takes a GPU: below, importing torch and copying
take longer than the products."""

SAMPLE = 256
"""Approximate number of rows from which the center is chosen."""

LONGEST = 1e36
"""Squared length of a row up to which distances fit float32."""

Product = Callable[[slice, slice], Floats]


def stack(query: NDArray[Any], gallery: NDArray[Any], *, normalize: bool) -> Floats:
    """Query (Q, D) and gallery (G, D) features in one float32 array (Q + G, D).

    `normalize` scales rows to unit length; zero rows stay zero.
    Raises UserError when they are not matrices of the same width, are empty, or not finite.
    """
    query, gallery = np.asarray(query), np.asarray(gallery)
    for name, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or features.dtype.kind not in "fiu":
            raise UserError(
                f"{name} features must be numbers (rows, size), got {features.dtype} of shape "
                f"{features.shape}"
            )
        if len(features) == 0:
            raise UserError(f"the {name} is empty: there is nothing to rank")
    if query.shape[1] != gallery.shape[1]:
        raise UserError(
            f"query features have size {query.shape[1]}, gallery features {gallery.shape[1]}: "
            "they come from different models"
        )
    if query.shape[1] == 0:
        raise UserError("features have size 0: there is nothing to rank by")
    features = np.concatenate([query, gallery], dtype=np.float32)
    norms = np.einsum("nd,nd->n", features, features, dtype=np.float64)  # cannot overflow
    if not np.isfinite(norms).all():
        raise UserError(f"features of row {int(np.isfinite(norms).argmin())} are not finite")
    if normalize:
        features /= np.where(norms > 0, np.sqrt(norms), 1).astype(np.float32)[:, None]
    elif norms.max() > LONGEST:
        row = int(norms.argmax())
        raise UserError(f"features of row {row} are too large: scale them down or normalize")
    return features


def squared_norms(features: Floats) -> Floats:
    """(N,) squared length of each row, with no (N, D) temporary."""
    norms: Floats = np.einsum("nd,nd->n", features, features)
    return norms


def center(features: Floats) -> None:
    """Subtract a central row from all rows, in place, if that halves their mean squared length.

    Distances stay the same, but |a|^2 + |b|^2 - 2 ab of nearly parallel rows loses its digits
    when |a| and |b| are large. The center is one of the rows, so equal distances stay equal.
    """
    sample = features[:: len(features) // SAMPLE + 1]
    middle = sample[squared_norms(sample - sample.mean(axis=0)).argmin()].copy()
    if 2 * squared_norms(sample - middle).mean() < squared_norms(sample).mean():
        features -= middle


def product_of(features: Floats, device: str | None = None) -> Product:
    """Function of (rows, columns) that returns features[rows] @ features[columns].T, float32.

    device: torch device such as `cuda`; None multiplies by NumPy and does not import torch.
    """
    if device is None:
        return lambda rows, columns: features[rows] @ features[columns].T
    import torch

    try:
        tensor = torch.from_numpy(features).to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {device!r} cannot hold the features: {reason}") from None
    return lambda rows, columns: (tensor[rows] @ tensor[columns].T).numpy(force=True)


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


def blocks(start: int, stop: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover start..stop."""
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))


def cosine(query: NDArray[Any], gallery: NDArray[Any], *, device: str | None = None) -> Floats:
    """1 - cosine similarity (Q, G) float32; a zero row is at distance 1 from all.

    Raises UserError on features that `stack` refuses.
    """
    features = stack(query, gallery, normalize=True)
    product = product_of(features, device)
    out = np.empty((len(query), len(gallery)), np.float32)
    for rows in blocks(0, len(query), ROWS):
        np.subtract(1, product(rows, slice(len(query), len(features))), out=out[rows])
    np.maximum(out, 0, out=out)
    tie_copies(out, first_equal(features)[len(query) :])
    return out


def first_equal(features: Floats) -> NDArray[np.int64]:
    """(N,) for each row the first row that is equal to it, mostly itself."""
    first = np.arange(len(features))
    keys = np.bitwise_xor.reduce(features.view(np.uint32), axis=1)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    seen: dict[bytes, int] = {}
    for row in np.flatnonzero(counts[inverse] > 1).tolist():
        first[row] = seen.setdefault(features[row].tobytes(), row)
    return first


def tie_copies(distances: Floats, first: NDArray[np.int64]) -> None:
    """Give copies of a gallery row the same column of `distances` (Q, G), in place.

    first: (G,) as `first_equal` gives it. A matrix product may round equal columns differently,
    and copies must tie so that gallery order decides.
    """
    _, origin, inverse = np.unique(first, return_index=True, return_inverse=True)
    copies = np.flatnonzero(origin[inverse] != np.arange(len(first)))
    distances[:, copies] = distances[:, origin[inverse[copies]]]

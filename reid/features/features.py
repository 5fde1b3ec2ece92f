"""Features of a split as `reid extract` wrote them, and how a variant uses them (Sec. 3.2.5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reid.errors import UserError

Floats = NDArray[np.float32]

SAMPLE = 256
"""Rows, about, that tell where the middle of all is."""


def read(path: Path, *, rows: int, flip_tta: bool) -> Floats:
    """Raw features (rows, D) float32; with `flip_tta` the mean with those of the mirrored clips.

    Raises UserError when the file is missing, damaged, lacks the mirrored features, has not one
    row per tracklet of the index, or holds values that are not finite.
    """
    found = _tensors(path, ("features", "flipped") if flip_tta else ("features",))
    if "features" not in found:
        raise UserError(f"{path} holds no features: run `reid extract` again")
    if flip_tta and "flipped" not in found:
        raise UserError(f"{path} lacks the features of mirrored clips: run `reid extract`")
    for name, part in found.items():
        if part.ndim != 2 or part.shape != found["features"].shape:
            raise UserError(
                f"{path}: {name} have shape {part.shape}, expected (tracklets, size) as features: "
                "run `reid extract` again"
            )
        if len(part) != rows:
            raise UserError(
                f"{path} has {len(part)} rows, the index {rows} tracklets: run `reid extract` again"
            )
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            raise UserError(f"{path}: {name} of row {int(finite.argmin())} are not finite")
    features: Floats = found["features"]
    return (features + found["flipped"]) / np.float32(2) if flip_tta else features


def heights(path: Path, *, rows: int) -> Floats | None:
    """(rows,) median pixel height of the crops, where the file has it.

    Raises UserError when the file is missing or damaged, or they are not positive numbers.
    """
    found = _tensors(path, ("heights",)).get("heights")
    if found is not None and (found.shape != (rows,) or not (found > 0).all()):
        raise UserError(f"{path}: not {rows} positive heights: run `reid extract` again")
    return found


def _tensors(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Those of the named tensors that a file has. Raises UserError when it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as opened:
            there = set(opened.keys())
            return {name: opened.get_tensor(name) for name in names if name in there}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `reid extract`") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): run `reid extract` again") from None


def stack(query: NDArray[Any], gallery: NDArray[Any], *, normalize: bool) -> Floats:
    """Queries (Q, D), then gallery (G, D), in one float32 array (Q + G, D) made for distances.

    With `normalize` rows are scaled to unit length, zero rows stay zero. What all rows share is
    taken away where it is most of them: distances are the same, but for less rounding.
    Raises UserError when they are not matrices of one width, empty, or not finite.
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
    features = np.empty((len(query) + len(gallery), query.shape[1]), np.float32)
    features[: len(query)] = query
    features[len(query) :] = gallery
    norms = squared_norms(features)
    for row in np.flatnonzero(~np.isfinite(norms)):
        if not np.isfinite(features[row]).all():
            raise UserError(f"features of row {row} are not finite")
        if not normalize:
            raise UserError(f"features of row {row} are too large: scale them down or normalize")
    if normalize:
        _normalize(features, norms)
    _center(features)
    return features


def squared_norms(features: Floats) -> Floats:
    """(N,) squared length of each row, with no (N, D) temporary."""
    with np.errstate(over="ignore"):
        norms: Floats = np.einsum("nd,nd->n", features, features)
    return norms


def _normalize(features: Floats, norms: Floats) -> None:
    """Scale rows to unit length, in place; norms: their squared lengths."""
    extreme = np.flatnonzero(~((norms > 1e-20) & (norms < 1e20)))  # far from where squares end
    if len(extreme):
        largest = np.abs(features[extreme]).max(axis=1, keepdims=True)
        features[extreme] /= np.where(largest > 0, largest, np.float32(1))
        norms[extreme] = squared_norms(features[extreme])
    lengths = np.sqrt(norms)
    features /= np.where(lengths > 0, lengths, np.float32(1))[:, None]


def _center(features: Floats) -> None:
    """Subtract a row in the middle from all, in place, if that halves their mean squared length.

    |a - b|^2 = |a|^2 + |b|^2 - 2 ab rounds by |a|^2 and |b|^2. Among rows that are nearly parallel
    nothing would be left of the difference.
    """
    sample = features[:: len(features) // SAMPLE + 1]
    mean = sample.mean(axis=0)
    norms, along = squared_norms(sample), np.einsum("nd,d->n", sample, mean)
    middle = int((norms - 2 * along).argmin())  # a row, not the mean: exact ties stay exact
    if 2 * along[middle] - norms[middle] > norms.mean() / 2:
        features -= sample[middle].copy()

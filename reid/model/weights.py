"""CLIP weights from any file they come in, as one plain float32 state dict in OpenAI names.

Safetensors, `torch.save` state dicts and OpenAI's TorchScript archives are told apart by their
content, not by their suffix. None of them can run code: pickles are read with `weights_only=True`,
and of a TorchScript archive only the tensors (reid.model.torchscript).
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reid.config import OPEN_CLIP_PREFIX
from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model import torchscript
from reid.model.geometry import Geometry, geometry_of

_METADATA = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's state dicts that are no weights."""
_MASK = "attn_mask"
"""A constant of OpenAI's text blocks, stored in traced archives like a parameter."""


@dataclass(frozen=True)
class Weights:
    """CLIP weights: tensors in OpenAI names (float32), their geometry, and what file they are."""

    tensors: Mapping[str, Tensor]
    geometry: Geometry
    source: str
    sha256: str


def load(spec: str) -> Weights:
    """Load CLIP weights from a local file or, with a network, `open_clip:<model>:<tag>`.

    Raises UserError when the file is missing, unreadable, or no CLIP with a ViT.
    """
    if spec.startswith(OPEN_CLIP_PREFIX):
        tensors = _from_open_clip(spec)
        digest = _digest(_plain(tensors))
    else:
        path = _existing(spec)
        tensors = _read(path)
        digest = sha256_of_file(path)
    plain = _plain(tensors)
    geometry = geometry_of(plain, spec)
    broken = [name for name, tensor in plain.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{spec}: numbers that are not finite in {', '.join(broken[:3])}")
    return Weights(plain, geometry, spec, digest)


def read_geometry(spec: str) -> Geometry:
    """The sizes of both towers of a local file, without reading its numbers where the file allows.

    Raises UserError as `load` does, but for numbers that are not finite.
    """
    if spec.startswith(OPEN_CLIP_PREFIX):
        return load(spec).geometry
    path = _existing(spec)
    return geometry_of(_plain(_read(path, device="meta")), spec)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Any state dict in a file that `load` can read, float32, without `module.` prefixes.

    Raises UserError when the file is missing, unreadable, or would run code.
    """
    _demand_file(path, "expected a file of weights")
    return _plain(_read(path))


def _existing(spec: str) -> Path:
    path = Path(spec)
    hint = "put the CLIP file there or change `backbones` (README: data and weights)"
    _demand_file(path, hint)
    return path


def _demand_file(path: Path, hint: str) -> None:
    """Raise UserError, ending in `hint`, unless `path` is a file that can be opened."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"weights {path} do not exist: {hint}") from None
    except OSError as error:
        raise UserError(f"weights {path} cannot be read ({error.strerror}): {hint}") from None


def resize_positions(table: Tensor, rows: int, columns: int, mode: str) -> Tensor:
    """Resize a position table (1 + g*g, d) to (1 + rows*columns, d); the class row is kept.

    `bilinear` without antialiasing is the released code's, see MODEL section 4.1.
    """
    grid = math.isqrt(table.shape[0] - 1)
    if (rows, columns) == (grid, grid):
        return table
    square = table[1:].T.reshape(1, -1, grid, grid)
    resized = torch.nn.functional.interpolate(
        square, size=(rows, columns), mode=mode, align_corners=False
    )
    return torch.cat([table[:1], resized.flatten(2)[0].T])


def _read(path: Path, device: str = "cpu") -> Mapping[Any, object]:
    """The mapping a file holds. On the `meta` device shapes only, where the format allows it."""
    with path.open("rb") as opened:
        head = opened.read(9)
    try:
        if torchscript.is_archive(path):
            return torchscript.read_tensors(path, device)
        if head.endswith(b"{"):  # safetensors: 8 bytes of size, then a JSON object
            return _safetensors(path, device)
        loaded = torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:
        # A damaged file surfaces as any exception of the unpickler, zipfile or torch, and their
        # words advise to read it unsafely.
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes): not a readable weights file of any kind: "
            "compare its SHA-256 with that of its source (README: data and weights)"
        ) from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return loaded


def _safetensors(path: Path, device: str) -> dict[Any, object]:
    with safe_open(path, framework="pt") as opened:
        names = opened.keys()
        if device == "meta":
            shapes = {name: opened.get_slice(name).get_shape() for name in names}
            return {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
        return {name: opened.get_tensor(name) for name in names}


def _from_open_clip(spec: str) -> Mapping[Any, object]:
    import open_clip

    try:
        _, model, tag = spec.split(":")
    except ValueError:
        raise UserError(f"weights {spec!r}: expected open_clip:<model>:<tag>") from None
    if tag == "openai" and not model.endswith("-quickgelu"):
        raise UserError(f"weights {spec!r}: OpenAI's weights need QuickGELU: use {model}-quickgelu")
    try:
        return dict(open_clip.create_model(model, pretrained=tag).state_dict())
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"weights {spec!r} could not be fetched ({str(error).splitlines()[0]}): "
            "download the file elsewhere and name its path"
        ) from None


def _plain(loaded: Mapping[Any, object]) -> dict[str, Tensor]:
    """The tensors of a state dict, float32, without `module.` prefixes and entries of OpenAI's."""
    inner = loaded.get("state_dict")
    named = {
        name.removeprefix("module."): tensor
        for name, tensor in (inner if isinstance(inner, Mapping) else loaded).items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    return {
        name: tensor.float()
        for name, tensor in named.items()
        if name not in _METADATA and name.rpartition(".")[2] != _MASK
    }


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()

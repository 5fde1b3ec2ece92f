"""CLIP weights from any file they come in, as one plain float32 state dict in OpenAI names.

Safetensors, `torch.save` state dicts and OpenAI's TorchScript archives are told apart by their
content, not by their suffix. None of them can run code: pickles are read with `weights_only=True`,
and of a TorchScript archive only the tensors (reid.model.torchscript).
"""

import hashlib
import math
import re
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
from reid.model.text import TOKENS, TextTower
from reid.model.vit import Geometry, VisualTower

_METADATA = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's state dicts that are no weights."""
_HINT = "put the CLIP file there or change `backbones` (README: data and weights)"
_UNUSED = ("logit_scale",)
"""Tensors that may be there or not: nothing here reads them."""
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
        plain = _plain(_from_open_clip(spec))
        digest = _digest(plain)
    else:
        path = _existing(spec)
        plain, digest = _plain(_read(path)), sha256_of_file(path)
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
    return _plain(_read(_existing(path, "expected a file of weights")))


def _existing(spec: str | Path, hint: str = _HINT) -> Path:
    """The path, if it is a file that can be opened; else raises UserError ending in `hint`."""
    try:
        Path(spec).open("rb").close()
    except FileNotFoundError:
        raise UserError(f"weights {spec} do not exist: {hint}") from None
    except OSError as error:
        raise UserError(f"weights {spec} cannot be read ({error.strerror}): {hint}") from None
    return Path(spec)


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


def geometry_of(tensors: Mapping[str, Tensor], source: str) -> Geometry:
    """Read the sizes of both towers from the shapes of their tensors (OpenAI names).

    Raises UserError naming a tensor that is missing, unknown, or at odds with the others.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in tensors:
            raise UserError(f"{source}: no tensor {name!r}: expected CLIP ViT weights")
        if tensors[name].dim() != dimensions:
            raise UserError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}: "
                f"expected {dimensions} dimensions as in CLIP"
            )
        return tensors[name].shape

    width, _, patch, _ = shape("visual.conv1.weight", 4)
    positions = shape("visual.positional_embedding", 2)[0] - 1
    context, text_width = shape("positional_embedding", 2)
    geometry = Geometry(
        width=width,
        depth=_depth(tensors, "visual.", source),
        patch=patch,
        grid=math.isqrt(positions),
        embed=shape("visual.proj", 2)[1],
        text_width=text_width,
        text_depth=_depth(tensors, "", source),
        context=context,
        vocabulary=shape("token_embedding.weight", 2)[0],
    )
    if geometry.grid**2 != positions:
        raise UserError(f"{source}: {positions} visual positions are no square grid")
    if width % 64 or text_width % 64:
        raise UserError(
            f"{source}: widths {width} (visual) and {text_width} (text) "
            "must be multiples of 64, the width of a CLIP attention head"
        )
    if geometry.vocabulary <= max(TOKENS):
        raise UserError(
            f"{source}: vocabulary of {geometry.vocabulary} tokens: expected CLIP's 49408"
        )
    expected = _expected_shapes(geometry)
    given = {name: tensor.shape for name, tensor in tensors.items() if name not in _UNUSED}
    misshapen = {
        f"{name} is {tuple(given[name])}, expected {tuple(expected[name])}"
        for name in expected.keys() & given.keys()
        if expected[name] != given[name]
    }
    for problem, names in (
        ("lack", expected.keys() - given.keys()),
        ("have unknown", given.keys() - expected.keys()),
        ("have misshapen", misshapen),
    ):
        if names:
            raise UserError(f"{source}: weights {problem} tensors: {', '.join(sorted(names)[:3])}")
    return geometry


def _depth(tensors: Mapping[str, Tensor], tower: str, source: str) -> int:
    pattern = re.compile(rf"{tower}transformer\.resblocks\.(\d+)\.")
    blocks = {match[1] for name in tensors if (match := pattern.match(name))}
    if not blocks:
        raise UserError(f"{source}: no tensors {tower}transformer.resblocks.*: expected CLIP's")
    return len(blocks)


def _expected_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of a CLIP with a ViT, as OpenAI publishes it."""
    side = geometry.grid * geometry.patch
    with torch.device("meta"):
        visual = VisualTower(geometry, height=side, width=side, stride=geometry.patch)
        text = TextTower(geometry)
    return {
        **{f"visual.{name}": tensor.shape for name, tensor in visual.state_dict().items()},
        **{name: tensor.shape for name, tensor in text.state_dict().items()},
        "token_embedding.weight": (geometry.vocabulary, geometry.text_width),
    }

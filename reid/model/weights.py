"""CLIP weights from any file they come in, as one plain float32 state dict in OpenAI names.

Four kinds of file are read: safetensors, a plain `torch.save` state dict, the same with OpenAI's
three metadata entries, and OpenAI's TorchScript archive. Pickled files are read with
`weights_only=True`: a file can never run code.
"""

import hashlib
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reid.errors import UserError
from reid.files import sha256_of_file

OPEN_CLIP_PREFIX = "open_clip:"
_METADATA = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Geometry:
    """Sizes of both towers, read from the shapes of the weights (MODEL section 4)."""

    width: int
    depth: int
    patch: int
    grid: int
    embed: int
    text_width: int
    text_depth: int
    context: int
    vocabulary: int

    @property
    def heads(self) -> int:
        """Attention heads of the visual tower: CLIP's are 64 wide."""
        return self.width // 64

    @property
    def text_heads(self) -> int:
        """Attention heads of the text tower."""
        return self.text_width // 64


VIT_B16 = Geometry(768, 12, 16, 14, 512, 512, 12, 77, 49408)
VIT_L14 = Geometry(1024, 24, 14, 16, 768, 768, 12, 77, 49408)


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
        digest = _digest(tensors)
    else:
        path = Path(spec)
        if not path.is_file():
            raise UserError(
                f"weights {path} do not exist: put the CLIP file there or change `backbones` "
                "(README: data and weights)"
            )
        tensors = _read(path)
        digest = sha256_of_file(path)
    plain = _plain(tensors)
    return Weights(plain, geometry_of(plain, spec), spec, digest)


def geometry_of(tensors: Mapping[str, Tensor], source: str) -> Geometry:
    """Read the sizes of both towers from the shapes. Raises UserError naming what is wrong."""

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
    grid = math.isqrt(positions)
    if grid * grid != positions:
        raise UserError(f"{source}: {positions} visual positions are no square grid")
    context, text_width = shape("positional_embedding", 2)
    geometry = Geometry(
        width=width,
        depth=_blocks(tensors, "visual.transformer.resblocks."),
        patch=patch,
        grid=grid,
        embed=shape("visual.proj", 2)[1],
        text_width=text_width,
        text_depth=_blocks(tensors, "transformer.resblocks."),
        context=context,
        vocabulary=shape("token_embedding.weight", 2)[0],
    )
    if width % 64 or text_width % 64:
        raise UserError(
            f"{source}: widths {width} (visual) and {text_width} (text) "
            "must be multiples of 64, the width of a CLIP attention head"
        )
    if shape("text_projection", 2) != (text_width, geometry.embed):
        raise UserError(
            f"{source}: text_projection has shape {tuple(tensors['text_projection'].shape)}: "
            f"expected {(text_width, geometry.embed)} to match the visual tower"
        )
    return geometry


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


def _read(path: Path) -> Mapping[str, object]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a readable weights file ({reason})") from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return loaded


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with a `constants.pkl` and code."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _from_open_clip(spec: str) -> Mapping[str, object]:
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


def _plain(loaded: Mapping[str, object]) -> dict[str, Tensor]:
    inner = loaded.get("state_dict", loaded)
    if not isinstance(inner, Mapping):
        inner = loaded
    return {
        name.removeprefix("module."): tensor.float()
        for name, tensor in inner.items()
        if isinstance(tensor, Tensor) and name.removeprefix("module.") not in _METADATA
    }


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})


def _digest(tensors: Mapping[str, object]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()

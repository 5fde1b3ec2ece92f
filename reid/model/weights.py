"""CLIP weights from any file they come in, as one plain float32 state dict in OpenAI names.

Files are told apart by their content, not by their suffix, and none of them can run code
(reid.model.pickled). Names and wrappers: reid.model.names.
"""

import dataclasses
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reid.config import OPEN_CLIP_PREFIX, Backbone, nearest
from reid.errors import UserError
from reid.files import demand_regular, sha256_of_file
from reid.model import pickled
from reid.model.names import plain_tensors
from reid.model.text import TOKENS, TextTower
from reid.model.vit import VIT_B16, VIT_L14, Geometry, VisualTower

GEOMETRIES = {"vit_b16": VIT_B16, "vit_l14": VIT_L14}
"""Of the backbones whose name promises one."""
_HINT = "put the CLIP file there or change `backbones` (README: data and weights)"
_UNUSED = ("logit_scale",)
"""Tensors that may be there or not: nothing here reads them."""
_HEADS = {
    b"PK": "a zip archive that is cut off",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"<": "a web page or XML: the download failed",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file: unpack it",
    b"": "a file of unknown format",
}
"""First bytes of what is found in the place of weights."""
_DAMAGE = (
    *(pickle.PickleError, zipfile.BadZipFile, SafetensorError, EOFError, RuntimeError, ValueError),
    *(TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, BufferError),
    MemoryError,
)
"""What reading a damaged file can end in."""


@dataclass(frozen=True)
class Weights:
    """CLIP weights: tensors in OpenAI names (float32), their geometry, and what file they are."""

    tensors: Mapping[str, Tensor]
    geometry: Geometry
    source: str
    sha256: str

    @property
    def identity(self) -> str:
        """What a training records of its weights: the file, and the activation if not OpenAI's."""
        plain = self.geometry.activation == "quick_gelu"
        return self.sha256 if plain else f"{self.sha256} {self.geometry.activation}"


def load_backbone(backbones: Mapping[str, Backbone], name: str) -> Weights:
    """The weights of `backbones.<name>`.

    Raises UserError as `load` does, and when the name promises another geometry.
    """
    backbone = backbones[name]
    weights = load(backbone.weights, activation=backbone.activation, sha256=backbone.sha256)
    _require_named(name, weights.geometry, backbone.weights)
    return weights


def load(spec: str, *, activation: str | None = None, sha256: str | None = None) -> Weights:
    """Load CLIP weights from a local file or, with a network, `open_clip:<model>:<tag>`.

    `activation` is that of the tag, or QuickGELU for a file, unless given.
    Raises UserError when the file is missing, unreadable, no CLIP with a ViT, or has another
    digest than `sha256`; and when a tag has another activation.
    """
    path, known = _located(spec)
    if activation and known and activation != known:
        raise UserError(
            f"weights {spec!r} were trained with {known}, but `activation` is {activation}: "
            "leave it out"
        )
    digest = sha256_of_file(path)
    if sha256 and digest != sha256:
        raise UserError(
            f"weights {spec} have SHA-256 {digest}, but `sha256` of their backbone is {sha256}: "
            "get the file again or, if another one is meant, set `sha256` to its own or to null"
        )
    given = _read(path)
    geometry = geometry_of(given, spec)
    tensors = _copied(given)
    infinite = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if infinite:
        raise UserError(f"{spec}: numbers that are not finite in {', '.join(infinite[:3])}")
    used: Any = activation or known or "quick_gelu"
    return Weights(tensors, dataclasses.replace(geometry, activation=used), spec, digest)


def read_geometry(spec: str, name: str = "") -> Geometry:
    """The sizes of both towers, without reading numbers; QuickGELU.

    `name`: that of the backbone. Raises UserError as `load` does, but for what numbers tell.
    """
    geometry = geometry_of(_read(_located(spec)[0]), spec)
    _require_named(name, geometry, spec)
    return geometry


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Any state dict in a file that `load` can read: float32, without prefixes.

    Raises UserError when the file is missing or unreadable.
    """
    return _copied(_read(_regular(path, "expected a file of weights")))


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In memory, in float32: the file may change."""
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}


def _require_named(name: str, geometry: Geometry, source: str) -> None:
    """Refuse weights of real size that are not what the backbone is called."""
    promised = GEOMETRIES.get(name, geometry)
    sizes = [(sizes.width, sizes.depth, sizes.patch) for sizes in (promised, geometry)]
    if sizes[0] != sizes[1] and geometry.width >= VIT_B16.width:  # a tiny CLIP stands for any
        called = next((n for n, known in GEOMETRIES.items() if known == geometry), "another CLIP")
        width, depth, patch = sizes[1]
        raise UserError(
            f"backbones.{name}: {source} holds {called} (width {width}, {depth} blocks, patch "
            f"{patch}), not {name}: name the right file, or call the backbone otherwise"
        )


def _located(spec: str) -> tuple[Path, str | None]:
    """The file of a backbone, and for a tag of open_clip the activation it was trained with."""
    if not spec.startswith(OPEN_CLIP_PREFIX):
        return _regular(Path(spec)), None
    import open_clip

    try:
        _, model, tag = spec.split(":")
    except ValueError:
        raise UserError(f"weights {spec!r}: expected open_clip:<model>:<tag>") from None
    options = open_clip.get_pretrained_cfg(model, tag)
    architecture = open_clip.get_model_config(model)
    if options:
        try:
            path = open_clip.download_pretrained(options)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"weights {spec!r} could not be fetched ({str(error).splitlines()[0]}): "
                "download the file elsewhere and name its path"
            ) from None
    elif architecture and Path(tag).is_file():  # as open_clip takes it
        path, options = tag, architecture
    else:
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = nearest(tag, tags) or nearest(model, open_clip.list_models())
        raise UserError(f"weights {spec!r}: open_clip has no such model and tag{known}")
    return _regular(Path(path)), "quick_gelu" if options.get("quick_gelu") else "gelu"


def _regular(path: Path, hint: str = _HINT) -> Path:
    """The path, if it is a file that can be read; else raises UserError ending in `hint`."""
    try:
        demand_regular(path)
        path.open("rb").close()
    except FileNotFoundError:
        raise UserError(f"weights {path} do not exist: {hint}") from None
    except OSError as error:
        raise UserError(f"weights {path} cannot be read ({error.strerror}): {hint}") from None
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """The plain tensors of a file; their numbers stay in it until they are read."""
    with path.open("rb") as file:
        head = file.read(24)
    problem = "a damaged file, or larger than the memory"
    try:
        archived = zipfile.is_zipfile(path)
        if head[8:9] == b"{" and not archived:  # 8 bytes of size, then JSON
            return plain_tensors(load_file(path), path)
        if archived or head.startswith(b"\x80"):
            return plain_tensors(pickled.read(path), path)
        problem = next(found for start, found in _HEADS.items() if head.startswith(start))
    except pickled.WrongFormat as error:
        problem = str(error)
    except _DAMAGE:  # their messages are of no help to a user
        pass
    raise UserError(
        f"{path} ({path.stat().st_size:,} bytes) is {problem}, expected CLIP weights: compare its "
        "SHA-256 with that of its source (README: data and weights)"
    )


def geometry_of(tensors: Mapping[str, Tensor], source: str) -> Geometry:
    """Read the sizes of both towers from the shapes of their tensors (OpenAI names).

    Raises UserError naming a tensor that is missing, unknown, or at odds with the others.
    """
    shapes = {n: tuple(tensor.shape) for n, tensor in tensors.items() if n not in _UNUSED}

    def sizes(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in shapes:
            names = ", ".join(sorted(shapes)[:3]) or "none"
            raise UserError(
                f"{source}: no tensor {name!r}: expected CLIP with a ViT, found {names}"
            )
        if len(shapes[name]) != dimensions:
            raise UserError(f"{source}: {name} is {shapes[name]}, expected {dimensions} dimensions")
        return shapes[name]

    def depth(tower: str) -> int:
        blocks = re.compile(rf"{tower}transformer\.resblocks\.(\d+)\.")
        return len({match[1] for name in shapes if (match := blocks.match(name))})

    width, _, patch, _ = sizes("visual.conv1.weight", 4)
    positions = sizes("visual.positional_embedding", 2)[0] - 1
    context, text_width = sizes("positional_embedding", 2)
    geometry = Geometry(
        width=width,
        depth=depth("visual."),
        patch=patch,
        grid=math.isqrt(max(0, positions)),
        embed=sizes("visual.proj", 2)[1],
        text_width=text_width,
        text_depth=depth(""),
        context=context,
        vocabulary=sizes("token_embedding.weight", 2)[0],
    )
    for wrong, problem in (
        (0 in dataclasses.astuple(geometry), "a size of zero"),
        (geometry.grid**2 != positions, f"{positions} visual positions, which are no square"),
        (width % 64 or text_width % 64, "a width that is no multiple of CLIP's heads of 64"),
        (geometry.vocabulary <= max(TOKENS), "a vocabulary too small for CLIP's token ids"),
        (context < len(TOKENS), f"a context below the {len(TOKENS)} tokens of our sentences"),
    ):
        if wrong:
            raise UserError(f"{source}: {problem} ({geometry})")
    expected = _expected_shapes(geometry)
    problems = [
        *(f"{name} is missing" for name in expected.keys() - shapes.keys()),
        *(f"{name} is unknown" for name in shapes.keys() - expected.keys()),
        *(
            f"{name} is {shapes[name]}, expected {expected[name]}"
            for name in expected.keys() & shapes.keys()
            if shapes[name] != expected[name]
        ),
    ]
    if problems:
        raise UserError(f"{source}: not the tensors of CLIP: {'; '.join(sorted(problems)[:3])}")
    return geometry


def _expected_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor of a CLIP with a ViT, as OpenAI publishes it."""
    side = geometry.grid * geometry.patch
    with torch.device("meta"):
        visual = VisualTower(geometry, height=side, width=side, stride=geometry.patch)
        named = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
        named |= TextTower(geometry).state_dict()
    vocabulary = {"token_embedding.weight": (geometry.vocabulary, geometry.text_width)}
    return {name: tuple(tensor.shape) for name, tensor in named.items()} | vocabulary

"""A state dict in OpenAI's names, from the wrappers and names that CLIP weights come in."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reid.errors import UserError
from reid.model.pickled import Foreign, module_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which whole checkpoints keep the weights."""
_PREFIXES = re.compile(r"^(?:(?:module|model|clip|text)\.)+")
"""Of DataParallel, of a wrapping module, of open_clip's separate text tower."""
_NOT_READ = {
    *("input_resolution", "context_length", "vocab_size"),  # OpenAI's sizes
    *("attn_mask", "position_ids"),  # constants of the text tower
    "num_batches_tracked",  # of a batch norm, not read when its momentum is fixed
}
_HUGGING_FACE = {
    "vision_model.": "visual.",
    "text_model.": "",
    "encoder.layers.": "transformer.resblocks.",
    "final_layer_norm.": "ln_final.",
    "pre_layrnorm.": "ln_pre.",  # their spelling
    "post_layernorm.": "ln_post.",
    "layer_norm": "ln_",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.": "attn.",
    "embeddings.patch_embedding.": "conv1.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.": "",
}
"""Parts of the names of transformers' CLIPModel; each is replaced, in this order."""
_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
"""Matrices that transformers keeps transposed."""


def plain_tensors(loaded: object, source: object) -> dict[str, Tensor]:
    """The weights in what a file holds: without wrappers and prefixes.

    Raises UserError when it holds no state dict, a value that is no plain tensor of real numbers,
    or a tensor twice.
    """
    tensors: dict[str, Tensor] = {}
    for stored, value in _state_dict(loaded, source).items():
        name = _PREFIXES.sub("", stored.replace("_orig_mod.", ""))  # of torch.compile
        if name.rpartition(".")[2] in _NOT_READ:
            continue
        if isinstance(value, Foreign):
            raise UserError(f"{source}: {stored} is a {value.name}: expected a plain tensor")
        if not isinstance(value, Tensor):
            continue
        if not value.is_floating_point():
            raise UserError(f"{source}: {stored} is of {value.dtype}: expected floating point")
        if math.prod(value.shape) * value.itemsize > value.untyped_storage().nbytes():
            raise UserError(
                f"{source}: {stored} {tuple(value.shape)} repeats fewer numbers than it has "
                "places: save it with .contiguous()"
            )
        if name in tensors:
            raise UserError(f"{source}: two tensors {name!r}, one of them under {stored!r}")
        tensors[name] = value
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        return _from_hugging_face(tensors)
    return tensors


def _state_dict(loaded: object, source: object) -> Mapping[str, Any]:
    if isinstance(loaded, Foreign) and loaded.state is not None:
        return module_tensors(loaded)
    if not isinstance(loaded, Mapping):
        kind = loaded.name if isinstance(loaded, Foreign) else type(loaded).__name__
        raise UserError(f"{source}: holds a {kind}: expected a state dict")
    for wrapper in _WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping | Foreign):
            return _state_dict(loaded[wrapper], source)
    return {name: value for name, value in loaded.items() if isinstance(name, str)}


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if name in _PROJECTIONS:
            renamed[_PROJECTIONS[name]] = tensor.T
            continue
        for theirs, ours in _HUGGING_FACE.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    for name in [name for name in renamed if ".q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if renamed.keys() >= set(parts):
            together = torch.cat([renamed.pop(part) for part in parts])
            renamed[name.replace(".q_proj.", ".in_proj_")] = together
    return renamed

"""One loader for every file that CLIP weights come in (MODEL section 8); others are refused."""

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model import weights
from tests.clips import TINY

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

Tensors = dict[str, Tensor]
Write = Callable[[Tensors, Path], object]
SIZES = {
    name: torch.tensor(value)
    for name, value in (("input_resolution", 128), ("context_length", 77), ("vocab_size", 49408))
}
"""Entries of OpenAI's state dicts that are no weights."""


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def module_of(tensors: Tensors) -> nn.Module:
    """A module tree in half precision with the names of OpenAI's, attention mask included."""
    root = Nothing()
    for name, tensor in {**tensors, **SIZES}.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Nothing())
            module = module.get_submodule(parent)
        half = tensor.half() if tensor.is_floating_point() else tensor
        module.register_buffer(leaf, half)
    root.get_submodule("transformer.resblocks.0").attn_mask = torch.ones(77, 77)
    return root


def scripted(tensors: Tensors, path: Path) -> None:
    torch.jit.script(module_of(tensors)).save(str(path))


def traced(tensors: Tensors, path: Path) -> None:
    """As OpenAI made its files."""
    torch.jit.trace(module_of(tensors), torch.zeros(1)).save(str(path))


def saved(wrap: Callable[[Tensors], object] = dict, **options: bool) -> Write:
    """Written by `torch.save`."""
    return lambda t, path: torch.save(wrap(t), path, **options)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda t: {prefix + name: tensor for name, tensor in t.items()}


def hugging_face(tensors: Tensors) -> Tensors:
    """In the names of transformers' CLIPModel, written down from its source."""
    towers = {True: "vision_model.", False: "text_model."}
    outer = {
        "conv1.weight": "embeddings.patch_embedding.weight",
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding.weight": "embeddings.token_embedding.weight",
        **{f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")},
        **{f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")},
        **{f"ln_final.{kind}": f"final_layer_norm.{kind}" for kind in ("weight", "bias")},
    }
    inner = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj",
    }  # fmt: skip
    renamed = {"logit_scale": tensors["logit_scale"]}
    renamed["visual_projection.weight"] = tensors["visual.proj"].T.contiguous()
    renamed["text_projection.weight"] = tensors["text_projection"].T.contiguous()
    for name, tensor in tensors.items():
        tower, short = towers[name.startswith("visual.")], name.removeprefix("visual.")
        if short in outer:
            renamed[tower + outer[short]] = tensor
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.*)\.(weight|bias)", short):
            layer = f"{tower}encoder.layers.{match[1]}"
            renamed[f"{layer}.{inner[match[2]]}.{match[3]}"] = tensor
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(.*)", short):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                layer = f"{tower}encoder.layers.{match[1]}.self_attn"
                renamed[f"{layer}.{part}_proj.{match[2]}"] = rows.clone()
    return {**renamed, "text_model.embeddings.position_ids": torch.arange(77)}


def trained(tensors: Tensors) -> dict[str, object]:
    """A checkpoint of open_clip's training: what is beside the weights is no tensor."""
    inner = prefixed("module._orig_mod.")(tensors)
    options = argparse.Namespace(folder=Path("/x"), precision=torch.float32)
    return {"state_dict": inner, "best": np.float64(0.5), "args": options, "epoch": 3}


READ: dict[str, tuple[str, Write]] = {
    "safetensors": (".safetensors", save_file),
    "safetensors, another suffix": (".pt", save_file),
    "safetensors, Hugging Face": (".bin", lambda t, path: save_file(hugging_face(t), path)),
    "plain": (".pt", saved()),
    "before zip files": (".pth", saved(_use_new_zipfile_serialization=False)),
    "half": (".pt", saved(lambda t: {name: tensor.half() for name, tensor in t.items()})),
    "double": (".pt", saved(lambda t: {name: tensor.double() for name, tensor in t.items()})),
    "parameters": (".pt", saved(lambda t: {n: nn.Parameter(tensor) for n, tensor in t.items()})),
    "with OpenAI's sizes": (".pt", saved(lambda t: {**t, **SIZES})),
    "TorchScript, scripted": (".pt", scripted),
    "TorchScript, traced": (".pt", traced),
    "TorchScript, another suffix": (".safetensors", traced),
    "a whole module": (".pt", saved(module_of)),
    "a whole module, before zip files": (
        ".pt", saved(module_of, _use_new_zipfile_serialization=False)),
    "state_dict": (".pt", saved(lambda t: {"epoch": 3, "state_dict": t})),
    "model": (".pt", saved(lambda t: {"model": t, "optimizer": {}})),
    "DataParallel": (".pt", saved(prefixed("module."))),
    "in another module": (".pt", saved(prefixed("model."))),
    "trained with open_clip, compiled": (".pt", saved(trained)),
    "trained, before zip files": (".pt", saved(trained, _use_new_zipfile_serialization=False)),
    "a text tower of its own": (
        ".pt", saved(lambda t: {n if n.startswith(("visual.", "logit")) else f"text.{n}": x
                                for n, x in t.items()})),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_every_format_loads(kind: str, tensors: Tensors, tmp_path: Path) -> None:
    suffix, write = READ[kind]
    path = tmp_path / f"clip{suffix}"
    write(tensors, path)
    loaded = weights.load(str(path))
    assert loaded.geometry == weights.read_geometry(str(path)) == TINY
    assert loaded.sha256 == sha256_of_file(path)
    assert loaded.tensors.keys() == tensors.keys()
    rounded = kind == "half" or "TorchScript" in kind or "whole module" in kind
    for name, tensor in loaded.tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[name].half().float() if rounded else tensors[name])


def half_of(whole: Write) -> Write:
    def write(tensors: Tensors, path: Path) -> None:
        whole(tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def content(written: bytes) -> Write:
    return lambda _, path: path.write_bytes(written)


def zip_of(*members: str) -> Write:
    def write(_: Tensors, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(f"archive/{name}", b"x")

    return write


MISSING = {
    "visual.proj": "no tensor 'visual.proj'",  # a ResNet
    "(?!visual)": "no tensor 'positional_embedding'",
    "visual.positional": "no tensor 'visual.positional_embedding'",
    "visual.transformer": "size of zero.*depth=0",
    "transformer": "size of zero.*text_depth=0",
    "visual.transformer.resblocks.1": "transformer.resblocks.1.* is missing",
    "ln_final.bias": "ln_final.bias is missing",
    "visual.ln_pre.bias": "visual.ln_pre.bias is missing",
}
"""Patterns of names of the tensors that a file lacks."""
PROJECTION, FLAT = torch.zeros(128, 64), torch.zeros(3)
REPLACED: list[tuple[str, object, str]] = [
    ("visual.positional_embedding", torch.zeros(0, 128), "size of zero"),
    ("visual.positional_embedding", torch.zeros(60, 128), "no square"),
    ("positional_embedding", torch.zeros(9, 64), "context below the 23"),
    ("token_embedding.weight", torch.zeros(9, 64), "vocabulary too small"),
    ("token_embedding.weight", torch.zeros(1, 64).expand(2**40, 64), "repeats fewer numbers"),
    ("text_projection", torch.zeros(64, 32), r"text_projection is \(64, 32\), expected"),
    ("visual.conv1.weight", torch.zeros(100, 3, 16, 16), "multiple of CLIP's heads of 64"),
    ("visual.ln_post.weight", FLAT, r"visual.ln_post.weight is \(3,\), expected \(128,\)"),
    ("ln_final.weight", FLAT, r"ln_final.weight is \(3,\)"),
    ("visual.extra", FLAT, "visual.extra is unknown"),
    ("module.ln_final.bias", torch.zeros(64), "two tensors 'ln_final.bias'"),
    ("visual.proj", torch.zeros(128), "expected 2 dimensions"),
    ("visual.proj", torch.zeros(128, 0), "size of zero"),
    ("visual.proj", torch.zeros(1, 1).expand(2**31, 2**31), "repeats fewer numbers"),
    ("visual.proj", PROJECTION.int(), "is of torch.int32"),
    ("visual.proj", PROJECTION.bool(), "is of torch.bool"),
    ("visual.proj", PROJECTION.cfloat(), "is of torch.complex64"),
    ("visual.proj", PROJECTION.to_sparse(), "is a torch._utils._rebuild_sparse_tensor"),
    ("visual.proj", PROJECTION.to("meta"), "is a torch._utils._rebuild_meta_tensor"),
    ("visual.proj", PROJECTION.numpy(), "is a numpy"),
    ("visual.proj", torch.quantize_per_tensor(FLAT, 1.0, 0, torch.qint8), "of an unknown kind"),
]
FOUND: dict[str, tuple[Write, str]] = {
    "a list": (saved(list), "holds a list"),
    "one tensor": (saved(lambda _: FLAT), "holds a Tensor"),
    "an optimizer": (saved(lambda _: {"state": {0: FLAT}, "param_groups": []}), "found none"),
    "numbered tensors": (saved(lambda _: {0: FLAT}), "found none"),
    "another module": (saved(lambda _: nn.Linear(2, 2)), "found bias, weight"),
    "a pickle": (content(pickle.dumps({})), "a Python pickle that torch.save did not write"),
    "another zip": (zip_of("readme"), "a zip file that torch.save did not write"),
    "a zip like TorchScript": (zip_of("constants.pkl", "data.pkl"), "a damaged file"),
    "a pointer": (content(b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "a web page": (content(b"<!DOCTYPE html><html>"), "a web page"),
    "empty": (content(b""), r"\(0 bytes\) is a file of unknown format"),
    "text": (content(b"not weights\n" * 99), "unknown format"),
    "noise": (content(b"\x80" + os.urandom(5000)), "is a .*, expected CLIP weights"),
}
REFUSED: dict[str, tuple[Write, str]] = {
    **{f"without {lacking}": (
        saved(lambda t, lacking=lacking: {n: x for n, x in t.items() if not re.match(lacking, n)}),
        message) for lacking, message in MISSING.items()},
    **{f"{name} {message}": (saved(lambda t, pair=(name, value): dict([*t.items(), pair])), message)
       for name, value, message in REPLACED},
    **FOUND,
    **{f"half of {kind}": (half_of(write), "a damaged file|is cut off")
       for kind, (_, write) in READ.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_clip_is_one_clear_error(kind: str, tensors: Tensors, tmp_path: Path) -> None:
    write, message = REFUSED[kind]
    path = tmp_path / "clip.pt"
    write(tensors, path)
    for read in (weights.load, weights.read_geometry):
        with pytest.raises(UserError, match=message) as caught:
            read(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite(tensors: Tensors, tmp_path: Path) -> None:
    torch.save({**tensors, "visual.proj": torch.full((128, 64), torch.nan)}, tmp_path / "clip.pt")
    with pytest.raises(UserError, match=r"not finite in visual\.proj"):
        weights.load(str(tmp_path / "clip.pt"))


def test_a_flipped_byte_is_never_a_traceback(tensors: Tensors, tmp_path: Path) -> None:
    path, generator = tmp_path / "clip.pt", np.random.default_rng(0)
    for write in (READ["plain"][1], READ["before zip files"][1], READ["safetensors"][1]):
        write(tensors, path)
        whole = path.read_bytes()
        start = max(0, whole.find(b"data.pkl"))  # numbers are not what is damaged here
        for place in start + generator.integers(6000, size=20):
            path.write_bytes(whole[:place] + generator.bytes(1) + whole[place + 1 :])
            with suppress(UserError):
                weights.read_geometry(str(path))


class RunsOnUnpickling:
    """A pickle of it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


class RunsOnLoading(nn.Module):
    """A TorchScript archive of it writes a file when `torch.jit.load` calls its `__setstate__`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = torch.from_file(state[0], True, 4).numel() > 0

    def forward(self, x: Tensor) -> Tensor:
        return x


def script_that_runs(path: Path, ran: Path) -> None:
    torch.jit.script(RunsOnLoading(str(ran))).save(str(path))


def pickle_that_runs(path: Path, ran: Path) -> None:
    path.write_bytes(pickle.dumps({"visual.proj": RunsOnUnpickling(ran)}, protocol=2))


def save_that_runs(path: Path, ran: Path, *, as_zip: bool = True) -> None:
    content = {"visual.proj": RunsOnUnpickling(ran)}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)


@pytest.mark.parametrize(
    ("write", "unsafe"),
    [
        (script_that_runs, torch.jit.load),
        (pickle_that_runs, lambda path: pickle.loads(path.read_bytes())),
        (save_that_runs, lambda path: torch.load(path, weights_only=False)),
        (
            lambda path, ran: save_that_runs(path, ran, as_zip=False),
            lambda path: torch.load(path, weights_only=False),
        ),
    ],
    ids=["TorchScript", "pickle", "torch.save", "torch.save, before zip files"],
)
def test_no_file_runs_code(
    write: Callable[[Path, Path], None], unsafe: Callable[[Path], object], tmp_path: Path
) -> None:
    path, ran = tmp_path / "clip.pt", tmp_path / "ran"
    write(path, ran)
    for read in (weights.load, weights.read_geometry):
        with pytest.raises(UserError, match=r"clip\.pt"):
            read(str(path))
    with suppress(UserError):
        weights.read_tensors(path)
    assert not ran.exists()
    unsafe(path)
    assert ran.exists(), "else the test could not fail"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for spec, message in (
        ("none.pt", "do not exist"),
        ("none.pt/inside", "do not exist"),
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("sparse", "not a regular file of at most 16,384 MiB"),
    ):
        with pytest.raises(UserError, match=message):
            weights.load(str(tmp_path / spec))

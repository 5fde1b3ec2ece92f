"""One loader for every file that CLIP weights come in (MODEL section 8); damage is one line."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reid.config import Model, Prompts
from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model import network, weights
from tests.clips import TINY, random_weights, state_dict

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

OPENAI_EXTRAS = {
    "input_resolution": torch.tensor(128),
    "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(49408),
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return state_dict(TINY)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def archive(tensors: dict[str, Tensor], path: Path) -> None:
    """A TorchScript archive in half precision, as OpenAI publishes its weights."""
    root = Nothing()
    for name, tensor in {**tensors, **OPENAI_EXTRAS}.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Nothing())
            module = module.get_submodule(parent)
        half = tensor.half() if tensor.is_floating_point() else tensor
        module.register_buffer(leaf, half)
    torch.jit.script(root).save(str(path))


FORMATS: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], None], float]] = {
    "safetensors": (".safetensors", save_file, 0),
    "plain": (".pt", lambda t, path: torch.save(t, path), 0),
    "ordered, before zip files": (
        ".pth",
        lambda t, path: torch.save(t, path, _use_new_zipfile_serialization=False),
        0,
    ),
    "OpenAI dict": (".pt", lambda t, path: torch.save({**t, **OPENAI_EXTRAS}, path), 0),
    "TorchScript": (".pt", archive, 1e-3),
    "state_dict inside": (
        ".pt",
        lambda t, path: torch.save({"epoch": 3, "state_dict": t}, path),
        0,
    ),
    "DataParallel": (
        ".pt",
        lambda t, path: torch.save({f"module.{name}": x for name, x in t.items()}, path),
        0,
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_loads(kind: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    suffix, write, tolerance = FORMATS[kind]
    path = tmp_path / f"clip{suffix}"
    write(tensors, path)
    loaded = weights.load(str(path))
    assert loaded.geometry == TINY
    assert loaded.sha256 == sha256_of_file(path)
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in loaded.tensors.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, tensors[name], rtol=tolerance, atol=tolerance)
    assert weights.read_geometry(str(path)) == TINY


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda t: {key: tensor for key, tensor in t.items() if key != name}


def with_(**changes: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda t: {**t, **{name.replace("__", "."): x for name, x in changes.items()}}


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "a ResNet": (without("visual.proj"), "visual.proj"),
    "no text tower": (
        lambda t: {name: x for name, x in t.items() if name.startswith("visual.")},
        "positional_embedding",
    ),
    "no blocks": (
        lambda t: {n: x for n, x in t.items() if "visual.transformer" not in n},
        "resblocks",
    ),
    "no text blocks": (
        lambda t: {n: x for n, x in t.items() if not n.startswith("transformer.")},
        "resblocks",
    ),
    "a block missing in the middle": (
        lambda t: {n: x for n, x in t.items() if "visual.transformer.resblocks.1." not in n},
        "resblocks",
    ),
    "an odd grid": (with_(visual__positional_embedding=torch.zeros(60, 128)), "square"),
    "a flat projection": (with_(visual__proj=torch.zeros(128)), "visual.proj"),
    "towers that do not meet": (with_(text_projection=torch.zeros(64, 32)), "text_projection"),
    "heads of another width": (with_(visual__conv1__weight=torch.zeros(100, 3, 16, 16)), "64"),
    "one misshapen tensor": (with_(visual__ln_post__weight=torch.zeros(7)), "ln_post"),
    "one misshapen text tensor": (with_(ln_final__weight=torch.zeros(7)), "ln_final"),
    "one text tensor missing": (without("ln_final.bias"), "ln_final.bias"),
    "one visual tensor missing": (without("visual.ln_pre.bias"), "ln_pre.bias"),
    "a tensor of something else": (with_(visual__extra=torch.zeros(3)), "extra"),
    "numbers that are not finite": (
        with_(visual__proj=torch.full((128, 64), torch.nan)),
        "visual.proj",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_geometry_is_one_clear_error(
    kind: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    change, named = WRONG[kind]
    path = tmp_path / "clip.safetensors"
    save_file({name: x.contiguous() for name, x in change(tensors).items()}, path)
    with pytest.raises(UserError) as caught:
        weights.load(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert named in message
    assert "\n" not in message


class Malicious:
    """What unpickling would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(f"archive/{name.replace('__', '.')}", content)
    return buffer.getvalue()


def half_of(kind: str) -> Callable[[dict[str, Tensor], Path], None]:
    def write(tensors: dict[str, Tensor], path: Path) -> None:
        FORMATS[kind][1](tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


DAMAGED: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], object]]] = {
    **{
        f"empty {suffix}": (suffix, lambda _, path: path.write_bytes(b""))
        for suffix in (".pt", ".safetensors", ".bin")
    },
    **{
        f"text {suffix}": (suffix, lambda _, path: path.write_text("not weights\n" * 99))
        for suffix in (".pt", ".safetensors", ".bin")
    },
    **{
        f"noise {suffix}": (suffix, lambda _, path: path.write_bytes(os.urandom(5000)))
        for suffix in (".pt", ".safetensors")
    },
    **{f"half of {kind}": (FORMATS[kind][0], half_of(kind)) for kind in FORMATS},
    "another zip": (".pt", lambda _, path: path.write_bytes(zip_of(readme=b"hello"))),
    "a zip like TorchScript": (
        ".pt",
        lambda _, path: path.write_bytes(zip_of(constants__pkl=b"x", data__pkl=b"x")),
    ),
    "a list": (".pt", lambda _, path: torch.save([1, 2], path)),
    "one tensor": (".pt", lambda _, path: torch.save(torch.zeros(3), path)),
    "an optimizer": (
        ".pt",
        lambda _, path: torch.save({"state": {0: torch.zeros(1)}, "param_groups": []}, path),
    ),
    "numbered tensors": (".pt", lambda _, path: torch.save({0: torch.zeros(1)}, path)),
    "a safetensors named pt": (
        ".pt",
        lambda t, path: save_file({"visual.proj": t["visual.proj"]}, path),
    ),
}


@pytest.mark.parametrize("read", [weights.load, weights.read_geometry])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_file_is_one_clear_error(
    kind: str, read: Callable[[str], object], tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    suffix, write = DAMAGED[kind]
    path = tmp_path / f"clip{suffix}"
    write(tensors, path)
    with pytest.raises(UserError) as caught:
        read(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    path, ran = tmp_path / "clip.pt", tmp_path / "ran"
    torch.save({"visual.proj": Malicious(ran)}, path)
    with pytest.raises(UserError, match=r"clip\.pt"):
        weights.load(str(path))
    assert not ran.exists()


def test_missing_file_and_unknown_tag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        weights.load(str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match="open_clip:<model>:<tag>"):
        weights.load("open_clip:ViT-B-16")
    with pytest.raises(UserError, match="QuickGELU"):
        weights.load("open_clip:ViT-B-16:openai")


def test_loaded_tower_has_the_tensors_of_the_file() -> None:
    given = random_weights(TINY)
    options = Model(prompts=Prompts(length=0))
    model = network.build(
        options, num_classes=2, num_cameras=3, weights=given, image_size=(128, 128)
    )
    own = model.visual.state_dict()
    visual = {n.removeprefix("visual."): x for n, x in given.tensors.items() if "visual." in n}
    assert own.keys() - visual.keys() == {
        name for name in own if ".spatial." in name or ".temporal." in name
    }
    for name, tensor in visual.items():
        assert torch.equal(own[name], tensor), name


def test_positions_are_resized_by_hand() -> None:
    """A 2 x 2 grid to 1 x 4: bilinear weights by hand, the class row kept (MODEL 4.1)."""
    table = torch.tensor([[9.0], [0.0], [8.0], [4.0], [12.0]])
    resized = weights.resize_positions(table, 1, 4, "bilinear")
    # One row: the mean of both rows, 2 and 10. Columns at 1/4 steps: clamped, 1/4, 3/4, clamped.
    assert resized[:, 0].tolist() == [9.0, 2.0, 4.0, 8.0, 10.0]
    assert torch.equal(weights.resize_positions(table, 2, 2, "bilinear"), table)

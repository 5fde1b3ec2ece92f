"""One loader for every file that CLIP weights come in (MODEL section 8); damage is one line."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reid.config import Model, Prompts
from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model import network, weights
from reid.model.vit import resize_positions
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


def openai_module(tensors: dict[str, Tensor]) -> nn.Module:
    """A module tree in half precision with the names of OpenAI's, attention mask included."""
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
    root.get_submodule("transformer.resblocks.0").attn_mask = torch.ones(77, 77)
    return root


def scripted(tensors: dict[str, Tensor], path: Path) -> None:
    torch.jit.script(openai_module(tensors)).save(str(path))


def traced(tensors: dict[str, Tensor], path: Path) -> None:
    """As OpenAI made its files."""
    torch.jit.trace(openai_module(tensors), torch.zeros(1)).save(str(path))


Tensors = dict[str, Tensor]
Write = Callable[[Tensors, Path], object]


def saved(wrap: Callable[[Tensors], object] = dict, **options: bool) -> Write:
    """Written by `torch.save`."""
    return lambda t, path: torch.save(wrap(t), path, **options)


FORMATS: dict[str, tuple[str, Write, float]] = {
    "safetensors": (".safetensors", save_file, 0),
    "plain": (".pt", saved(), 0),
    "before zip files": (".pth", saved(_use_new_zipfile_serialization=False), 0),
    "OpenAI dict": (".pt", saved(lambda t: {**t, **OPENAI_EXTRAS}), 0),
    "TorchScript, scripted": (".pt", scripted, 1e-3),
    "TorchScript, traced": (".pt", traced, 1e-3),
    "TorchScript, another suffix": (".safetensors", traced, 1e-3),
    "safetensors, another suffix": (".pt", save_file, 0),
    "state_dict inside": (".pt", saved(lambda t: {"epoch": 3, "state_dict": t}), 0),
    "DataParallel": (".pt", saved(lambda t: {f"module.{name}": x for name, x in t.items()}), 0),
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


def without(pattern: str) -> Callable[[Tensors], Tensors]:
    return lambda t: {name: x for name, x in t.items() if not re.match(pattern, name)}


def with_(name: str, tensor: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda t: {**t, name: tensor}


NAN = torch.full((128, 64), torch.nan)
WRONG: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "a ResNet": (without("visual.proj"), "visual.proj"),
    "no text tower": (without("(?!visual)"), "positional_embedding"),
    "no blocks": (without("visual.transformer"), "resblocks"),
    "no text blocks": (without("transformer"), "resblocks"),
    "a block missing in the middle": (without("visual.transformer.resblocks.1"), "resblocks"),
    "an odd grid": (with_("visual.positional_embedding", torch.zeros(60, 128)), "square"),
    "a flat projection": (with_("visual.proj", torch.zeros(128)), "visual.proj"),
    "towers that do not meet": (with_("text_projection", torch.zeros(64, 32)), "text_projection"),
    "heads of another width": (with_("visual.conv1.weight", torch.zeros(100, 3, 16, 16)), "64"),
    "one misshapen tensor": (with_("visual.ln_post.weight", torch.zeros(7)), "ln_post"),
    "one misshapen text tensor": (with_("ln_final.weight", torch.zeros(7)), "ln_final"),
    "one text tensor missing": (without("ln_final.bias"), "ln_final.bias"),
    "one visual tensor missing": (without("visual.ln_pre.bias"), "ln_pre.bias"),
    "a tensor of something else": (with_("visual.extra", torch.zeros(3)), "extra"),
    "numbers that are not finite": (with_("visual.proj", NAN), "visual.proj"),
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


def content(make: Callable[[], bytes]) -> Write:
    return lambda _, path: path.write_bytes(make())


def zip_of(*members: str) -> Write:
    def write(_: Tensors, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as opened:
            for name in members:
                opened.writestr(f"archive/{name}", b"x")

    return write


def half_of(whole: Write) -> Write:
    def write(tensors: Tensors, path: Path) -> None:
        whole(tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def only_projection(t: Tensors, path: Path) -> None:
    save_file({"visual.proj": t["visual.proj"]}, path)


BYTES = {
    "empty": lambda: b"",
    "text": lambda: b"not weights\n" * 99,
    "noise": lambda: os.urandom(5000),
}
DAMAGED: dict[str, tuple[str, Write]] = {
    **{
        f"{kind} {suffix}": (suffix, content(make))
        for kind, make in BYTES.items()
        for suffix in (".pt", ".safetensors")
    },
    **{f"half of {kind}": (suffix, half_of(write)) for kind, (suffix, write, _) in FORMATS.items()},
    "another zip": (".pt", zip_of("readme")),
    "a zip like TorchScript": (".pt", zip_of("constants.pkl", "data.pkl")),
    "a list": (".pt", saved(list)),
    "one tensor": (".pt", saved(lambda _: torch.zeros(3))),
    "an optimizer": (".pt", saved(lambda _: {"state": {0: torch.zeros(1)}, "param_groups": []})),
    "numbered tensors": (".pt", saved(lambda _: {0: torch.zeros(1)})),
    "a safetensors named pt": (".pt", only_projection),
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


def malicious_script(ran: Path) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(RunsOnLoading(str(ran))), stream)
    return stream.getvalue()


def malicious_pickle(ran: Path) -> bytes:
    return pickle.dumps({"visual.proj": RunsOnUnpickling(ran)}, protocol=2)


def malicious_pickle_in(member: str) -> Callable[[Path], bytes]:
    """A real archive of OpenAI's kind with one of its pickles replaced."""

    def make(ran: Path) -> bytes:
        path, stream = ran.with_name("honest.pt"), io.BytesIO()
        traced(state_dict(TINY), path)
        with zipfile.ZipFile(path) as honest, zipfile.ZipFile(stream, "w") as rewritten:
            for name in honest.namelist():
                replaced = name.endswith(f"/{member}")
                rewritten.writestr(name, malicious_pickle(ran) if replaced else honest.read(name))
        return stream.getvalue()

    return make


def malicious_save(*, as_zip: bool) -> Callable[[Path], bytes]:
    def make(ran: Path) -> bytes:
        stream = io.BytesIO()
        payload = {"visual.proj": RunsOnUnpickling(ran)}
        torch.save(payload, stream, _use_new_zipfile_serialization=as_zip)
        return stream.getvalue()

    return make


def malicious_safetensors(ran: Path) -> bytes:
    """The format holds no code: a pickle in the place of its header."""
    payload = b"{" + malicious_pickle(ran)
    return len(payload).to_bytes(8, "little") + payload


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "TorchScript code": malicious_script,
    "data.pkl of TorchScript": malicious_pickle_in("data.pkl"),
    "constants.pkl of TorchScript": malicious_pickle_in("constants.pkl"),
    "torch.save": malicious_save(as_zip=True),
    "torch.save, before zip files": malicious_save(as_zip=False),
    "pickle": malicious_pickle,
    "safetensors": malicious_safetensors,
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_file_runs_code(kind: str, suffix: str, tmp_path: Path) -> None:
    path, ran = tmp_path / f"clip{suffix}", tmp_path / "ran"
    path.write_bytes(PAYLOADS[kind](ran))
    if kind == "constants.pkl of TorchScript":  # never looked at, and the rest is honest
        assert weights.load(str(path)).geometry == weights.read_geometry(str(path)) == TINY
    else:
        for read in (weights.load, weights.read_geometry):
            with pytest.raises(UserError, match=rf"clip\{suffix}"):
                read(str(path))
    with suppress(UserError):
        weights.read_tensors(path)
    assert not ran.exists()


def test_the_payloads_would_run(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    torch.jit.load(io.BytesIO(malicious_script(tmp_path / "one")))
    pickle.loads(malicious_pickle(tmp_path / "two"))
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


def test_missing_file_and_unknown_tag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        weights.load(str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match="open_clip:<model>:<tag>"):
        weights.load("open_clip:ViT-B-16")
    with pytest.raises(UserError, match="did you mean laion2b_s34b_b88k"):
        weights.load("open_clip:ViT-B-16:laion2b_s34b")


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
    resized = resize_positions(table, 1, 4, "bilinear")
    # One row: the mean of both rows, 2 and 10. Columns at 1/4 steps: clamped, 1/4, 3/4, clamped.
    assert resized[:, 0].tolist() == [9.0, 2.0, 4.0, 8.0, 10.0]
    assert torch.equal(resize_positions(table, 2, 2, "bilinear"), table)

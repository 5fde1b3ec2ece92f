"""The tiny CLIPs: OpenAI's layout, learning, determinism."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid.config import Demo
from reid.errors import UserError
from reid.model import weights
from reid.synthetic import pretrain
from reid.synthetic.captions import render_captioned
from reid.synthetic.pretrain import SHAPES, Shape

TINY = Shape(image=32, patch=16, width=64, layers=2, embed=64)
Captioned = tuple[NDArray[np.uint8], list[str]]


@pytest.fixture(scope="module")
def data() -> Captioned:
    return render_captioned(128, TINY.image, seed=1, workers=1)


def test_captioned_crops_do_not_depend_on_their_number(data: Captioned) -> None:
    crops, captions = render_captioned(5, TINY.image, seed=1, workers=1)
    assert data[0].shape == (128, 32, 32, 3)
    assert (crops == data[0][:5]).all()
    assert captions == data[1][:5]


def test_training_finds_the_captions(data: Captioned) -> None:
    _, losses = pretrain.train(TINY, *data, epochs=25, seed=0)
    assert len(losses) == 25 * 2
    assert sum(losses[-4:]) < 0.93 * sum(losses[:4])


def test_equal_seeds_give_equal_weights(data: Captioned) -> None:
    few = data[0][:64], data[1][:64]
    first, again, other = (
        pretrain.train(TINY, *few, epochs=1, seed=seed)[0].state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


@pytest.mark.parametrize("backbone", SHAPES)
def test_the_file_has_the_layout_of_openai(backbone: str, tmp_path: Path) -> None:
    shape, out = SHAPES[backbone], tmp_path / "weights" / "clip.safetensors"
    for _ in range(2):  # our own file is overwritten
        pretrain.pretrain(Demo(captions=8, clip_epochs=1), backbone, out)
    assert [path.name for path in out.parent.iterdir()] == ["clip.safetensors"]
    loaded = weights.load(str(out))  # checks every name and shape that the network needs
    assert loaded.geometry.patch == {"vit_b16": 16, "vit_l14": 14}[backbone]
    assert (loaded.geometry.width, loaded.geometry.depth) == (shape.width, shape.layers)
    assert {name: tuple(loaded.tensors[name].shape) for name in ("token_embedding.weight",
            "positional_embedding", "text_projection", "visual.positional_embedding")} == {
        "token_embedding.weight": (49408, shape.embed),
        "positional_embedding": (77, shape.embed),
        "text_projection": (shape.embed, shape.embed),
        "visual.positional_embedding": ((shape.image // shape.patch) ** 2 + 1, shape.width),
    }  # fmt: skip


def test_a_backbone_without_a_stand_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use vit_b16 or vit_l14"):
        pretrain.pretrain(Demo(), "vit_h14", tmp_path / "x.safetensors")


def test_zoom_keeps_the_middle_and_the_range() -> None:
    ramp = torch.linspace(0, 1, 16).expand(50, 3, 16, 16).contiguous()
    zoomed = pretrain.zoom(ramp, torch.Generator().manual_seed(0))
    spans = zoomed[:, 0, 0, -1] - zoomed[:, 0, 0, 0]
    assert 0.6 < float(spans.abs().min()) < float(spans.abs().max()) <= 1.0
    assert 10 < int((spans > 0).sum()) < 40

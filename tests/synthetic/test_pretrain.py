"""The tiny CLIPs: OpenAI's layout, learning, determinism."""

from pathlib import Path

import pytest
import torch

from reid.config import Demo
from reid.errors import UserError
from reid.model import weights
from reid.synthetic import pretrain
from reid.synthetic.captions import Captioned, render_captioned
from reid.synthetic.pretrain import SHAPES, Shape

TINY = Shape(image=32, patch=16, width=64, layers=2, embed=32, text_width=64, text_layers=1)


@pytest.fixture(scope="module")
def data() -> Captioned:
    return render_captioned(96, TINY.image, seed=1, workers=1)


def test_captioned_crops_do_not_depend_on_their_number(data: Captioned) -> None:
    fewer = render_captioned(5, TINY.image, seed=1, workers=1)
    assert data.crops.shape == (96, 32, 32, 3)
    assert (fewer.crops == data.crops[:5]).all()
    assert fewer.captions == data.captions[:5]


def test_training_finds_the_captions(data: Captioned) -> None:
    _, losses = pretrain.train(TINY, data, epochs=12, seed=0, name="tiny")
    assert len(losses) == 12
    assert losses[-1] < 0.93 * losses[0]


def test_equal_seeds_give_equal_weights(data: Captioned) -> None:
    first, again, other = (
        pretrain.train(TINY, data, epochs=1, seed=seed, name="tiny")[0].state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


@pytest.mark.parametrize("backbone", SHAPES)
def test_the_file_has_the_layout_of_openai(backbone: str, tmp_path: Path) -> None:
    shape = SHAPES[backbone]
    out = tmp_path / "weights" / "clip.safetensors"
    pretrain.pretrain(Demo(captions=8, clip_epochs=1), backbone, out)
    assert [path.name for path in out.parent.iterdir()] == ["clip.safetensors"]
    loaded = weights.load(str(out))  # checks every name and shape that the network needs
    assert (loaded.geometry.patch, loaded.geometry.width) == (shape.patch, shape.width)
    assert loaded.geometry.depth == shape.layers
    patches = (shape.image // shape.patch) ** 2
    assert {name: tuple(loaded.tensors[name].shape) for name in EXPECTED} == {
        "visual.conv1.weight": (shape.width, 3, shape.patch, shape.patch),
        "visual.class_embedding": (shape.width,),
        "visual.positional_embedding": (patches + 1, shape.width),
        "visual.transformer.resblocks.0.attn.in_proj_weight": (3 * shape.width, shape.width),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (4 * shape.width, shape.width),
        "visual.proj": (shape.width, shape.embed),
        "token_embedding.weight": (49408, shape.text_width),
        "positional_embedding": (77, shape.text_width),
        "ln_final.weight": (shape.text_width,),
        "text_projection": (shape.text_width, shape.embed),
        "logit_scale": (),
    }


EXPECTED = (
    "visual.conv1.weight",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.transformer.resblocks.0.attn.in_proj_weight",
    "visual.transformer.resblocks.0.mlp.c_fc.weight",
    "visual.proj",
    "token_embedding.weight",
    "positional_embedding",
    "ln_final.weight",
    "text_projection",
    "logit_scale",
)


def test_the_larger_one_is_larger() -> None:
    small, large = SHAPES["vit_b16"], SHAPES["vit_l14"]
    assert large.width > small.width
    assert large.layers > small.layers
    assert (small.patch, large.patch) == (16, 14)


def test_a_backbone_without_a_stand_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use vit_b16 or vit_l14"):
        pretrain.pretrain(Demo(), "vit_h14", tmp_path / "x.safetensors")


def test_zoom_keeps_the_middle_and_the_range() -> None:
    ramp = torch.linspace(0, 1, 16).expand(50, 3, 16, 16).contiguous()
    zoomed = pretrain.zoom(ramp, torch.Generator().manual_seed(0))
    assert zoomed.shape == ramp.shape
    assert float(zoomed.min()) >= 0
    assert float(zoomed.max()) <= 1
    spans = (zoomed[:, 0, 0, -1] - zoomed[:, 0, 0, 0]).abs()
    assert 0.6 < float(spans.min()) < float(spans.max()) <= 1.0
    rising = zoomed[:, 0, 0, -1] > zoomed[:, 0, 0, 0]
    assert 10 < int(rising.sum()) < 40

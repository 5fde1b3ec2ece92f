"""The `backbones` of a configuration: tags, activations, digests, geometries."""

from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch import Tensor

from reid.config import Backbone
from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model import weights
from reid.model.vit import VIT_L14, Geometry, resize_positions
from reid.model.weights import load_backbone
from tests.clips import TINY

Tensors = dict[str, Tensor]


@pytest.fixture
def file(tensors: Tensors, tmp_path: Path) -> str:
    torch.save(tensors, tmp_path / "clip.pt")
    return str(tmp_path / "clip.pt")


TAGS = {
    "open_clip:ViT-B-16:openai": "quick_gelu",
    "open_clip:ViT-B-16-quickgelu:openai": "quick_gelu",
    "open_clip:ViT-B-16:laion2b_s34b_b88k": "gelu",
    "open_clip:ViT-L-14:dfn2b": "quick_gelu",
    "open_clip:ViT-L-14:dfn2b_s39b": "gelu",
}


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_knows_its_activation(tag: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What open_clip would fetch is a local file here."""
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: file)
    loaded = weights.load(tag)
    assert (loaded.geometry.activation, loaded.sha256) == (TAGS[tag], sha256_of_file(Path(file)))
    assert weights.load(tag, activation=TAGS[tag]).geometry == loaded.geometry
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[TAGS[tag]]
    with pytest.raises(UserError, match=f"trained with {TAGS[tag]}, but `activation` is {other}"):
        weights.load(tag, activation=other)


def test_a_tag_that_is_none_or_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(_: object) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    for tag, message in (
        ("ViT-B-16", "expected open_clip:<model>:<tag>"),
        ("ViT-B-16:laion2b_s34b", "did you mean laion2b_s34b_b88k"),
        ("ViT-B16:openai", "did you mean ViT-B-16"),
        ("ViT-B-16:openai", r"could not be fetched \(no network\)"),
    ):
        with pytest.raises(UserError, match=message):
            weights.load(f"open_clip:{tag}")


def test_the_activation_of_a_file_is_an_option_and_recorded(file: str) -> None:
    plain = load_backbone({"b": Backbone(weights=file)}, "b")
    gelu = load_backbone({"b": Backbone(weights=file, activation="gelu")}, "b")
    assert (plain.geometry.activation, gelu.geometry.activation) == ("quick_gelu", "gelu")
    assert plain.identity == plain.sha256 == gelu.sha256
    assert gelu.identity != plain.identity


def test_another_file_than_promised_by_its_digest(file: str) -> None:
    digest = sha256_of_file(Path(file))
    assert load_backbone({"b": Backbone(weights=file, sha256=digest)}, "b").sha256 == digest
    with pytest.raises(
        UserError, match=f"SHA-256 {digest}, but `sha256` of their backbone is 0000"
    ):
        load_backbone({"b": Backbone(weights=file, sha256="0" * 64)}, "b")


@pytest.mark.parametrize(
    ("geometry", "name", "message"),
    [
        (Geometry(768, 12, 16, 2, 64, 64, 1, 77, 49408), "vit_l14", r"\(width 768, .*not vit_l14"),
        (Geometry(768, 12, 32, 1, 64, 64, 1, 77, 49408), "vit_b16", "patch 32.*not vit_b16"),
        (Geometry(768, 12, 16, 2, 64, 64, 1, 77, 49408), "vit_b16", None),
        (Geometry(768, 12, 16, 2, 64, 64, 1, 77, 49408), "mine", None),
        (TINY, "vit_l14", None),  # of the demo
    ],
)
def test_a_backbone_is_what_its_name_says(
    geometry: Geometry, name: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "load", lambda *_, **__: SimpleNamespace(geometry=geometry))
    if message is None:
        assert load_backbone({name: Backbone(weights="clip.pt")}, name).geometry == geometry
    else:
        with pytest.raises(UserError, match=f"backbones.{name}: clip.pt holds .*{message}"):
            load_backbone({name: Backbone(weights="clip.pt")}, name)
    assert weights.GEOMETRIES["vit_l14"] == VIT_L14


def test_positions_are_resized_by_hand() -> None:
    """A 2 x 2 grid to 1 x 4: bilinear weights by hand, the class row kept (MODEL 4.1)."""
    table = torch.tensor([[9.0], [0.0], [8.0], [4.0], [12.0]])
    resized = resize_positions(table, 1, 4, "bilinear")
    # One row: the mean of both rows, 2 and 10. Columns at 1/4 steps: clamped, 1/4, 3/4, clamped.
    assert resized[:, 0].tolist() == [9.0, 2.0, 4.0, 8.0, 10.0]
    assert torch.equal(resize_positions(table, 2, 2, "bilinear"), table)

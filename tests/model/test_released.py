"""Checkpoints of the released code: the same features, every tensor accounted for.

The oracle (tests/model/naive.py) is MODEL section 4 written a second time, with their names; it
was found equal, to the bit, to the released model itself.
"""

import pytest
import torch
from torch import Tensor

from reid.config import Model
from reid.errors import UserError
from reid.model import network
from reid.model.network import VideoReID
from reid.model.released import describe_import, load_reference_checkpoint
from tests.clips import TINY
from tests.model.naive import Naive

SIZE = (80, 48)
CLASSES = 5


def reference(*, attention: bool) -> Naive:
    """A released model with random tensors everywhere, as after training."""
    torch.manual_seed(0)
    sizes = {"classes": CLASSES, "cameras": 38, "prompts": (2, 4), "image_size": SIZE}
    model = Naive(TINY, attention=attention, **sizes)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor += 0.1 * torch.randn_like(tensor)
    return model


def ours(*, attention: bool, cameras: int = 3, **prompts: object) -> VideoReID:
    options = Model.model_validate(
        {
            "prompts": {"length": 4, "depth": 2, "metadata": False, **prompts},
            "pooling": {"kind": "attention" if attention else "mean"},
        }
    )
    torch.manual_seed(1)
    return network.build(
        options, num_classes=CLASSES, num_cameras=cameras, weights=TINY, image_size=SIZE
    )


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Clips of the three cameras, and no metadata."""
    clips = torch.randn(4, 3, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    return clips, torch.tensor([2, 0, 1, 1]), torch.full((4, 3), torch.nan)


def largest(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).abs().max())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("attention", [False, True], ids=["mean", "attention"])
def test_features_are_the_released_ones(attention: bool, prefix: str) -> None:
    theirs, mine = reference(attention=attention), ours(attention=attention)
    checkpoint = {f"{prefix}{name}": x for name, x in theirs.state_dict().items()}
    clips, cameras, metadata = inputs()
    released_order = clips.transpose(1, 2)
    before = mine.eval().embed(clips, cameras, metadata)
    load_reference_checkpoint(checkpoint, mine)
    with torch.inference_mode():
        expected = theirs.eval().embed(released_order, cameras)
        assert largest(mine.embed(clips, cameras, metadata), expected) < 1e-4
        assert largest(before, expected) > 0.1
        # Training: the feature before the last block and both classifiers behind their BN.
        found = theirs.train().features(released_order, cameras)
        features = mine.train()(clips, cameras, metadata)
        assert largest(features.last, found.last) < 1e-4
        logits = mine.classify(features)
        assert largest(logits[0], theirs.classifier(theirs.bottleneck(found.pooled))) < 1e-4
        assert largest(logits[1], theirs.classifier_proj(theirs.bottleneck_proj(found.proj))) < 1e-4
    for name in ("running_mean", "running_var"):
        both = (getattr(norm, name) for norm in (mine.head.norm, theirs.bottleneck))
        torch.testing.assert_close(*both, rtol=0, atol=1e-5)


def test_every_tensor_is_accounted_for() -> None:
    checkpoint, mine = reference(attention=True).state_dict(), ours(attention=True)
    fates = load_reference_checkpoint(checkpoint, mine)
    assert fates.keys() == checkpoint.keys()
    used = {fate.removeprefix("used as ") for fate in fates.values() if fate.startswith("used")}
    part = "prompts.camera, the first 3 cameras of 38"
    assert used == {part if name == "prompts.camera" else name for name in mine.state_dict()}
    for name, fate in fates.items():
        assert (fate == "text side") == name.startswith(("prompt_learner.", "text_encoder."))
        assert (fate == "no effect") == (
            name in ("temporal_attn.fc.bias", "temporal_attn_proj.fc.bias")
        )
    assert fates["bottleneck_proj.running_var"] == "used as head_proj.norm.running_var"
    all_cameras = load_reference_checkpoint(checkpoint, ours(attention=True, cameras=38))
    assert all_cameras["cv_embed"] == "used as prompts.camera"
    *lines, summary = describe_import(fates).splitlines()
    assert lines == [f"{name}: {fate}" for name, fate in fates.items()]
    assert f"{len(used)} used, 2 no effect" in summary


ADAPTER = "transformer.resblocks.1.dat_cross.temporal_block.temporal_attn.in_proj_weight"
EXTRA_BLOCK = "image_encoder.transformer.resblocks.3.ln_1.bias"
MISSING = {
    f"image_encoder.{ADAPTER}": "visual.transformer.resblocks.1.temporal.attn.in_proj_weight",
    "temporal_attn.fc.weight": "pool.score.weight",
    "bottleneck.running_var": "head.norm.running_var",
}
UNFIT: list[tuple[str, tuple[int, ...] | None, str]] = [
    *((name, None, f"missing {ours}") for name, ours in MISSING.items()),
    (EXTRA_BLOCK, (128,), f"left over {EXTRA_BLOCK}"),
    ("arcface.weight", (1,), "left over arcface.weight"),
    ("head.norm.weight", (128,), "left over head.norm.weight"),  # our own name
    (
        "classifier.weight",
        (9, 128),
        r"classifier.weight has shape \(9, 128\), our head.classifier.weight \(5, 128\)",
    ),
    ("cv_embed", (2, 4, 2, 128), r"cv_embed has shape \(2, 4, 2, 128\)"),  # fewer cameras
    (
        "cv_embed",
        (2, 6, 38, 128),
        r"cv_embed has shape \(2, 6, 3, 128\), our prompts.camera \(2, 4, 3, 128\)",
    ),
    ("cv_embed", (3,), r"cv_embed has shape \(3,\)"),
    ("cv_embed", (2, 4, 38, 128), "cv_embed has numbers that are not finite"),
]


@pytest.mark.parametrize(("name", "shape", "message"), UNFIT)
def test_what_does_not_fit_is_an_error_and_changes_nothing(
    name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    """A tensor is missing, or replaced by NaN of another shape."""
    checkpoint = reference(attention=True).state_dict()
    checkpoint.pop(name, None)
    if shape is not None:
        checkpoint[name] = torch.full(shape, torch.nan)
    mine = ours(attention=True)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_reference_checkpoint(checkpoint, mine)
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())


def test_another_checkpoint_or_training_is_named_by_its_first_problems() -> None:
    with pytest.raises(UserError, match=r"left over weight; missing .* and .* more"):
        load_reference_checkpoint({"weight": torch.zeros(1)}, ours(attention=True))
    with pytest.raises(UserError, match=r"left over temporal_attn\.fc\.weight"):
        load_reference_checkpoint(reference(attention=True).state_dict(), ours(attention=False))


def test_allowed_by_name_or_pattern() -> None:
    """Metadata tables start at zero and so change nothing: but they too must be asked for."""
    checkpoint = reference(attention=True).state_dict()
    checkpoint |= {"classifier.weight": torch.zeros(9, 128), "arcface.weight": torch.zeros(1)}
    mine = ours(attention=True, metadata=True)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    missing = ["prompts.altitude", "prompts.angle", "prompts.distance"]
    with pytest.raises(UserError, match=r"missing prompts\.altitude"):
        load_reference_checkpoint(checkpoint, mine, allow=["classifier.weight", "arcface*"])
    allowed = ["classifier.weight", "arcface*", *missing]
    fates = load_reference_checkpoint(checkpoint, mine, allow=allowed)
    assert [name for name, fate in fates.items() if fate == "left over"] == [
        "classifier.weight",
        "arcface.weight",
    ]
    kept = ["head.classifier.weight", *missing]
    assert [name for name, fate in fates.items() if fate == "missing"] == kept
    assert all(torch.equal(mine.state_dict()[name], before[name]) for name in kept)
    assert torch.equal(mine.head_proj.classifier.weight, checkpoint["classifier_proj.weight"])

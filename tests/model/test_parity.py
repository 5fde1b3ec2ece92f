"""Our towers against open_clip's, with the same weights (MODEL section 8)."""

from dataclasses import replace

import open_clip
import pytest
import torch

from reid.config import Adapters, Model, Prompts
from reid.model import network, text
from reid.model.vit import VIT_B16, VIT_L14, Geometry, resize_positions
from tests.clips import TINY, open_clip_model, random_weights, state_dict

PLAIN = Model(prompts=Prompts(length=0), adapters=Adapters(spatial=False, temporal=False))


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        (TINY, (128, 64)),
        (replace(TINY, activation="gelu"), (128, 128)),
        (VIT_B16, (256, 128)),
        (VIT_L14, (256, 128)),
    ],
    ids=["tiny", "tiny-square-gelu", "B/16", "L/14"],
)
def test_visual_tower_equals_open_clip(geometry: Geometry, size: tuple[int, int]) -> None:
    tensors = state_dict(geometry)
    rows, columns = size[0] // geometry.patch, size[1] // geometry.patch
    cropped = (rows * geometry.patch, columns * geometry.patch)
    tensors["visual.positional_embedding"] = resize_positions(
        tensors["visual.positional_embedding"], rows, columns, "bilinear"
    )
    theirs = open_clip_model(geometry, image_size=cropped)
    theirs.load_state_dict(tensors, assign=True)
    # On meta: initializing 300 million parameters only to replace them takes seconds.
    with torch.device("meta"):
        ours = network.build(
            PLAIN, num_classes=3, num_cameras=3, weights=geometry, image_size=size
        ).visual
    visual = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
    ours.load_state_dict(visual, assign=True)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mine = ours(images).projected
        other = theirs.encode_image(images[..., : cropped[0], : cropped[1]])
    torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
    assert other.square().mean().sqrt() > 0.1, "too small to tell"


def test_plain_clip_is_the_tower_without_adapters_and_prompts_averaged_over_frames() -> None:
    weights, size = random_weights(TINY), (32, 16)
    model = network.build(
        Model(prompts=Prompts(depth=3)),
        num_classes=3,
        num_cameras=3,
        weights=weights,
        image_size=size,
    )
    plain = network.build(PLAIN, num_classes=3, num_cameras=3, weights=weights, image_size=size)
    clips = torch.randn(2, 3, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        frames = plain.visual(clips.flatten(0, 1)).projected
        torch.testing.assert_close(model.plain_clip(clips), frames.unflatten(0, (2, 3)).mean(dim=1))


@pytest.mark.parametrize(
    "geometry",
    [TINY, replace(TINY, activation="gelu"), VIT_B16, VIT_L14],
    ids=["tiny", "tiny-gelu", "B/16", "L/14"],
)
def test_text_tower_equals_open_clip(geometry: Geometry) -> None:
    weights = random_weights(geometry)
    tower, contexts = text.build(weights.tensors, weights.geometry, classes=5)
    labels = torch.tensor([4, 0])
    embeddings = contexts(labels)
    theirs = open_clip_model(geometry)
    theirs.load_state_dict(weights.tensors, assign=True)
    causal = torch.full((77, 77), -torch.inf).triu(1)
    with torch.no_grad():
        padded = theirs.token_embedding(torch.zeros(2, 77, dtype=torch.long)).clone()
        padded[:, : len(text.TOKENS)] = embeddings
        x = padded + theirs.positional_embedding
        x = theirs.ln_final(theirs.transformer(x, attn_mask=causal))
        other = x[:, len(text.TOKENS) - 1] @ theirs.text_projection
        mine = tower(embeddings)
    torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
    assert other.square().mean().sqrt() > 0.1, "too small to tell"


def test_an_identity_context_stands_between_the_shared_tokens() -> None:
    tokens = torch.randn(49408, 64, generator=torch.Generator().manual_seed(0))
    contexts = text.IdentityContexts(5, tokens)
    [rows] = contexts(torch.tensor([3]))
    learned = (contexts.prefix[0], contexts.identity[3], contexts.suffix[0])
    expected = torch.cat([tokens[49406:49407], *learned, tokens[[269, 49407]]])
    assert torch.equal(rows, expected)


def test_token_ids_are_the_tokenizers() -> None:
    sentence = "P " * 8 + "X X X X " + "P " * 8 + "."
    ids = open_clip.tokenize(sentence)[0]
    assert tuple(ids[: len(text.TOKENS)].tolist()) == text.TOKENS
    assert not ids[len(text.TOKENS) :].any()

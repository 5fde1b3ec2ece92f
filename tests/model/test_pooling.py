"""Temporal pooling: the weights it gives out are those it pools with (Eq. 2-4)."""

import torch

from reid.config import Model, Pooling, Prompts
from reid.model import network
from reid.model.network import VideoReID
from reid.model.pooling import frame_quality
from tests.clips import TINY


def build(pooling: Pooling) -> VideoReID:
    torch.manual_seed(0)
    return network.build(
        Model(prompts=Prompts(length=0), pooling=pooling),
        num_classes=2,
        num_cameras=3,
        weights=TINY,
        image_size=(32, 16),
    ).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(2, 5, 3, 32, 16, generator=generator)
    heights = torch.tensor([[10.0, 20, 30, 40, 50], [80, 80, 80, 80, 80]])
    return clips, torch.tensor([0, 1]), torch.full((2, 3), torch.nan), heights


def test_the_weights_given_out_make_the_features() -> None:
    model = build(Pooling(kind="attention"))
    clips, cameras, metadata, heights = inputs()
    with torch.inference_mode():
        features, weights = model.embed_with_weights(clips, cameras, metadata, heights)
        frames = model.visual(clips.flatten(0, 1), frames=5)
        expected = [
            (alpha[..., None] * each.view(2, 5, -1)).sum(dim=1)
            for alpha, each in zip(weights.unbind(1), (frames.final, frames.projected), strict=True)
        ]
        assert torch.equal(features, model.embed(clips, cameras, metadata, heights))
    assert weights.shape == (2, 2, 5)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 2))
    torch.testing.assert_close(features, torch.cat(expected, dim=1))
    assert weights.std(dim=2).min() > 0


def test_mean_pooling_weighs_frames_alike_and_quality_prefers_high_crops() -> None:
    model = build(Pooling(kind="attention", quality=True))
    with torch.inference_mode():
        _, mean = build(Pooling()).embed_with_weights(*inputs())
        model.pool.score.weight.zero_()
        model.pool.beta.fill_(1.0)
        weights = model.embed_with_weights(*inputs())[1][:, 0]
    assert torch.equal(mean, torch.full((2, 2, 5), 0.2))
    assert (weights[0].diff() > 0).all()
    torch.testing.assert_close(weights[1], torch.full((5,), 0.2))


def test_quality_is_standardized_log_height_within_each_tracklet() -> None:
    heights = torch.tensor([[10.0, 20, 40, 80], [100, 100, 100, 100], [50, 50, 50, 200]])
    logs = heights.double().log()
    expected = (logs - logs.mean(dim=1, keepdim=True)) / logs.std(dim=1, correction=0, keepdim=True)
    expected[1] = 0  # equally high: no division by zero
    torch.testing.assert_close(frame_quality(heights).double(), expected, rtol=1e-5, atol=1e-5)
    # The unit of heights cancels.
    torch.testing.assert_close(frame_quality(3 * heights), frame_quality(heights))

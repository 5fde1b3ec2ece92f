"""Augmentation against a per-frame oracle in the order of the released transforms."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import functional as F

from reid.config import Augment, ColorJitter
from reid.data import jitter
from reid.data.augment import ERASE_FILL, augment
from reid.data.normalize import MEAN, STD, normalize, normalize_batched

OFF = {"flip": 0.0, "erase": 0.0}
STRONG = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3)
PAPER = ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05)


def clips(count=3, length=4, height=32, width=16, seed=0):
    """Smooth random clips: neighboring pixels resemble each other, as in a photograph."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count * length):
        coarse = Image.fromarray(rng.integers(0, 256, size=(6, 4, 3), dtype=np.uint8))
        frames.append(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    stacked = np.stack(frames).reshape(count, length, height, width, 3)
    return torch.from_numpy(stacked).permute(0, 1, 4, 2, 3).contiguous()


def gray_levels(output):
    """Undo the normalization."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((output * std + mean) * 255).round()


def test_normalize_is_imagenets():
    frames = clips()
    expected = TF.normalize(frames.flatten(0, 1) / 255, MEAN, STD).view_as(frames)
    assert torch.allclose(normalize(frames), expected, atol=1e-6)


def test_everything_off_is_normalize():
    frames = clips()
    untouched = augment(frames, options=Augment(**OFF), seeds=[1, 2, 3])
    assert torch.equal(untouched, normalize(frames))


def test_results_depend_on_the_clips_own_seed_only():
    frames = clips(4)
    options = Augment(flip=0.5, erase=0.5, pad=3, color_jitter=STRONG)
    seeds = [11, 12, 13, 14]
    together = augment(frames, options=options, seeds=seeds)
    for clip, seed in enumerate(seeds):
        alone = augment(frames[clip : clip + 1], options=options, seeds=[seed])
        assert torch.equal(alone[0], together[clip])
    assert torch.equal(together, augment(frames, options=options, seeds=seeds))
    assert not torch.equal(together, augment(frames, options=options, seeds=[1, 2, 3, 4]))


def test_the_input_is_left_as_it_was():
    frames = clips()
    before = frames.clone()
    augment(frames, options=Augment(flip=1, erase=1, pad=3, color_jitter=STRONG), seeds=[1, 2, 3])
    assert torch.equal(frames, before)


def test_global_random_state_does_not_matter():
    frames, options = clips(), Augment(pad=2, color_jitter=STRONG)
    torch.manual_seed(1)
    one = augment(frames, options=options, seeds=[1, 2, 3])
    torch.manual_seed(2)
    assert torch.equal(one, augment(frames, options=options, seeds=[1, 2, 3]))


def test_flip_mirrors_whole_clips_at_its_rate():
    frames = clips(200, 2, 8, 4)
    output = gray_levels(augment(frames, options=Augment(flip=0.3, erase=0), seeds=range(200)))
    mirrored = [torch.equal(o, f.flip(-1).float()) for o, f in zip(output, frames, strict=True)]
    same = [torch.equal(o, f.float()) for o, f in zip(output, frames, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 40 <= sum(mirrored) <= 80


def test_pad_and_crop_shifts_whole_clips_over_black():
    pad = 3
    frames = clips(60, 2, 12, 8)
    output = gray_levels(augment(frames, options=Augment(pad=pad, **OFF), seeds=range(60)))
    padded = torch.nn.functional.pad(frames, (pad,) * 4)
    offsets = set()
    for clip in range(60):
        hits = [
            (top, left)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if torch.equal(padded[clip, ..., top : top + 12, left : left + 8].float(), output[clip])
        ]
        assert len(hits) == 1
        offsets.add(hits[0])
    assert {top for top, _ in offsets} == set(range(7))
    assert {left for _, left in offsets} == set(range(7))


def test_padding_wider_than_the_frame_is_black_at_the_extremes():
    output = augment(clips(1, 1, 4, 2), options=Augment(pad=40, **OFF), seeds=[0])
    assert torch.isfinite(output).all()


def erased(output, clean):
    """Masks (B, T, H, W) of pixels that hold the fill."""
    fill = torch.tensor(ERASE_FILL).view(3, 1, 1)
    mask = (output == fill).all(dim=2)
    assert torch.equal(output.where(~mask.unsqueeze(2), clean), clean)
    return mask


def test_erasing_fires_at_its_rate_for_whole_clips():
    frames = clips(300, 2, 16, 8)
    output = augment(frames, options=Augment(flip=0, erase=0.2), seeds=range(300))
    per_frame = erased(output, normalize(frames)).any(dim=(-1, -2))
    assert torch.equal(per_frame[:, 0], per_frame[:, 1])
    assert 40 <= int(per_frame[:, 0].sum()) <= 80


def test_erased_rectangles_share_their_corner_fraction_and_differ_in_size():
    height, width, length = 64, 32, 6
    frames = clips(40, length, height, width)
    output = augment(frames, options=Augment(flip=0, erase=1), seeds=range(40))
    masks = erased(output, normalize(frames))
    areas = []
    for clip in masks:
        sizes, vertical, horizontal = [], [], []
        for mask in clip:
            rows, columns = (mask.any(dim=axis).nonzero().flatten() for axis in (1, 0))
            h, w = len(rows), len(columns)
            assert int(mask.sum()) == h * w
            sizes.append((h, w))
            # tl = corner / (free space), known up to the rounding of the corner
            vertical.append((rows[0] - 0.5, rows[0] + 0.5, height - h))
            horizontal.append((columns[0] - 0.5, columns[0] + 0.5, width - w))
            areas.append(h * w / (height * width))
        assert len(set(sizes)) > 1
        for axis in (vertical, horizontal):
            low = max(float(a) / free for a, _, free in axis)
            high = min(float(b) / free for _, b, free in axis)
            assert low <= high + 1e-9
    assert min(areas) >= 0.015
    assert max(areas) <= 0.42
    assert 0.15 < np.mean(areas) < 0.25


def test_erasing_comes_after_normalization():
    output = augment(clips(1, 1), options=Augment(flip=0, erase=1), seeds=[0])
    assert (output[0, 0, 0] == torch.tensor(ERASE_FILL[0])).any()


# -- color jitter ---------------------------------------------------------------------------------


def test_jitter_draws_have_torchvisions_distribution():
    drawn = jitter.draw(
        ColorJitter(brightness=0.2, contrast=1.5, saturation=0.4, hue=0.1),
        4000,
        np.random.default_rng(0),
    )
    low, high = drawn.factors.min(axis=0), drawn.factors.max(axis=0)
    assert np.allclose(low, [0.8, 0.0, 0.6, -0.1], atol=0.01)
    assert np.allclose(high, [1.2, 2.5, 1.4, 0.1], atol=0.01)
    _, counts = np.unique(drawn.orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 100


@pytest.mark.parametrize("per", ["frame", "clip"])
def test_jitter_is_drawn_per_frame_or_per_clip(per):
    frames = clips(5, 1).repeat(1, 3, 1, 1, 1)
    options = Augment(**OFF, color_jitter=STRONG.model_copy(update={"per": per}))
    output = augment(frames, options=options, seeds=range(5))
    same = [torch.equal(clip[0], clip[1]) for clip in output]
    assert all(same) if per == "clip" else not any(same)
    assert not torch.equal(output, normalize(frames))


def torchvision_oracle(frame, order, factors):
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for operation in order:
        frame = steps[operation](frame, float(factors[operation]))
    return frame


def pillow_oracle(frame, order, factors):
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for operation in order:
        if operation == jitter.HUE:
            image = TF.adjust_hue(image, float(factors[operation]))
        else:
            image = enhancers[operation](image).enhance(float(factors[operation]))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def batched(frames, drawn, options):
    """What runs on a GPU."""
    output = frames.clone()
    jitter.apply_batched(output, drawn, np.ones(4, bool))
    return output


@pytest.mark.parametrize("apply", [jitter.apply, batched])
@pytest.mark.parametrize("options", [PAPER, STRONG])
def test_jitter_is_torchvisions_frame_by_frame(options, apply):
    frames = clips(1, 48).flatten(0, 1)
    drawn = jitter.draw(options, 48, np.random.default_rng(1))
    output = apply(frames, drawn, options)
    expected = torch.stack(
        [
            torchvision_oracle(*case)
            for case in zip(frames, drawn.orders, drawn.factors, strict=True)
        ]
    )
    difference = (output.int() - expected.int()).abs()
    assert (difference == 0).float().mean() > 0.999
    assert difference.max() <= 4  # a last bit before truncation, then contrast and hue on top


@pytest.mark.parametrize(("options", "mean", "most"), [(PAPER, 1, 16), (STRONG, 1, 32)])
def test_jitter_stays_near_pillows(options, mean, most):
    """Pillow rounds hue and saturation to 8 bits on the way: a few gray levels, not the same."""
    frames = clips(1, 48).flatten(0, 1)
    drawn = jitter.draw(options, 48, np.random.default_rng(2))
    output = jitter.apply(frames, drawn, options)
    expected = torch.stack(
        [pillow_oracle(*case) for case in zip(frames, drawn.orders, drawn.factors, strict=True)]
    )
    difference = (output.int() - expected.int()).abs().float()
    assert difference.mean() < mean
    assert difference.max() <= most


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_strength_of_zero_leaves_its_operation_out(name):
    frames = clips(1, 12).flatten(0, 1)
    only = ColorJitter(**{name: 0.3})
    drawn = jitter.draw(only, 12, np.random.default_rng(3))
    output = jitter.apply(frames, drawn, only)
    operation = ("brightness", "contrast", "saturation", "hue").index(name)
    expected = torch.stack(
        [
            torchvision_oracle(frame, [operation], factors)
            for frame, factors in zip(frames, drawn.factors, strict=True)
        ]
    )
    assert (output.int() - expected.int()).abs().max() <= 1
    assert not torch.equal(output, frames)


@pytest.mark.parametrize("shape", [(3, 8, 4), (2, 3, 8, 4), (0, 3, 8, 4), (2, 5, 3, 1, 7)])
def test_normalize_takes_any_batch_and_memory_in_any_order(shape):
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    expected = TF.normalize(frames / 255, MEAN, STD) if frames.numel() else frames.float()
    assert torch.allclose(normalize(frames), expected, atol=5e-7)
    assert torch.allclose(normalize_batched(frames), expected, atol=5e-7)
    turned = frames.transpose(-1, -2)
    assert torch.equal(normalize(turned), normalize(frames).transpose(-1, -2))

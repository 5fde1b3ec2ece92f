"""Augmentation against a per-frame oracle in the order of the released transforms."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import functional as F

from reid.config import Augment, ColorJitter
from reid.data.augment import ERASE_FILL, augment, draw_jitter, jitter, normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as the released code has them."""
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


@pytest.mark.parametrize("shape", [(3, 8, 4), (2, 3, 8, 4), (0, 3, 8, 4), (2, 5, 3, 1, 7)])
def test_normalize_is_imagenets(shape):
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert torch.allclose(normalize(frames), (frames / 255 - mean) / std, atol=1e-6)


def test_results_depend_on_the_clips_own_seed_only():
    """Not on the rest of the batch or the global generator; the input is left as it was."""
    frames = clips(4)
    before = frames.clone()
    options = Augment(flip=0.5, erase=0.5, pad=3, color_jitter=STRONG)
    seeds = [11, 12, 13, 14]
    together = augment(frames, options=options, seeds=seeds)
    for clip, seed in enumerate(seeds):
        torch.manual_seed(seed)
        alone = augment(frames[clip : clip + 1], options=options, seeds=[seed])
        assert torch.equal(alone[0], together[clip])
    assert torch.equal(together, augment(frames, options=options, seeds=seeds))
    assert not torch.equal(together, augment(frames, options=options, seeds=[1, 2, 3, 4]))
    assert torch.equal(frames, before)


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


def test_erased_rectangles_share_their_place_and_differ_in_size():
    """The corner is the same fraction of the free space in all frames of a clip."""
    height, width, length = 64, 32, 6
    frames = clips(60, length, height, width)
    output = augment(frames, options=Augment(flip=0, erase=1), seeds=range(60))
    masks = erased(output, normalize(frames))
    areas, places = [], []
    for clip in masks:
        sizes, bounds = [], ([], [])
        for mask in clip:
            extents = [mask.any(dim=axis).nonzero().flatten() for axis in (1, 0)]
            h, w = map(len, extents)
            assert int(mask.sum()) == h * w
            sizes.append((h, w))
            areas.append(h * w / (height * width))
            for pixels, free, bound in zip(extents, (height - h, width - w), bounds, strict=True):
                corner = int(pixels[0])  # known up to its rounding
                bound.append(((corner - 0.5) / free, (corner + 0.5) / free))
        assert len(set(sizes)) > 1
        common = [
            (max(low for low, _ in bound), min(high for _, high in bound)) for bound in bounds
        ]
        assert all(low <= high + 1e-9 for low, high in common)
        places.append([(low + high) / 2 for low, high in common])
    assert min(areas) >= 0.015
    assert max(areas) <= 0.42
    assert 0.15 < np.mean(areas) < 0.25
    for fractions in np.transpose(places):  # uniform, down and across, one apart from the other
        assert np.allclose(np.quantile(fractions, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.15)
    assert abs(np.corrcoef(np.transpose(places))[0, 1]) < 0.3


# -- color jitter ---------------------------------------------------------------------------------

NAMES = ("brightness", "contrast", "saturation", "hue")


def test_jitter_draws_have_torchvisions_distribution():
    options = ColorJitter(brightness=0.2, contrast=1.5, saturation=0.4, hue=0.1)
    steps = draw_jitter(options, 4000, seed=0)
    numbers, factors = steps[..., 0], steps[..., 1]
    for number, (low, high) in enumerate([(0.8, 1.2), (0, 2.5), (0.6, 1.4), (-0.1, 0.1)]):
        drawn = factors[numbers == number]
        assert len(drawn) == 4000
        quartiles = np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1])
        assert np.allclose(quartiles, np.linspace(low, high, 5), atol=0.04 * (high - low))
    _, counts = np.unique(numbers, axis=0, return_counts=True)
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


def by_torchvision(frame, steps):
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for number, factor in steps:
        frame = adjust[int(number)](frame, factor)
    return frame


def by_pillow(frame, steps):
    image = Image.fromarray(frame.permute(1, 2, 0).numpy())
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number, factor in steps:
        if number == 3:
            image = TF.adjust_hue(image, factor)
        else:
            image = enhancers[int(number)](image).enhance(factor)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("options", "oracle", "least_equal", "largest"),
    [
        # The last bit before truncation, then contrast and hue on top.
        *((options, by_torchvision, 0.998, 4) for options in (PAPER, STRONG)),
        *((ColorJitter(**{name: 0.3}), by_torchvision, 0.998, 1) for name in NAMES),
        # Pillow rounds hue and saturation to 8 bits on the way.
        (PAPER, by_pillow, 0.2, 16),
        (STRONG, by_pillow, 0.2, 32),
    ],
)
def test_jitter_is_that_of_an_oracle_frame_by_frame(options, oracle, least_equal, largest):
    frames = clips(1, 48).flatten(0, 1)
    steps = draw_jitter(options, 48, seed=1)
    before = frames.clone()
    output = jitter(frames, steps)
    assert torch.equal(frames, before)
    assert not torch.equal(output, frames)
    expected = torch.stack([oracle(*case) for case in zip(frames, steps, strict=True)])
    difference = (output.int() - expected.int()).abs().float()
    assert difference.mean() < 1
    assert difference.max() <= largest
    assert (difference == 0).float().mean() > least_equal


def test_gray_and_pure_colors_keep_to_the_range():
    """Hue of gray is undefined; of full colors it turns red into green by a third of a turn."""
    frames = torch.tensor([[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0]]).view(4, 3, 1, 1)
    turned = jitter(frames.to(torch.uint8), np.tile([[[3, 1 / 3]]], (4, 1, 1)))
    assert turned.flatten(1).tolist() == [[0] * 3, [255] * 3, [90] * 3, [0, 255, 0]]


ON_CROP = STRONG.model_copy(update={"place": "on_crop"})


@pytest.mark.parametrize("jitter", [{}, {"color_jitter": ON_CROP}])
def test_with_all_off_or_done_before_the_resize_it_is_normalize(jitter):
    frames = clips()
    output = augment(frames, options=Augment(**OFF, **jitter), seeds=[1, 2, 3])
    assert torch.equal(output, normalize(frames))

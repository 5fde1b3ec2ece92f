"""Color jitter before the resize."""

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import Augment, Clip, ColorJitter
from reid.data import index, jitter
from reid.data.augment import augment
from reid.data.dataset import TrackletDataset
from reid.data.loading import loader
from reid.data.normalize import normalize
from reid.data.sampler import Draw, pk_batches
from tests.trees import make_tree

CLIP = Clip(frames=4, height=48, width=24)
PAPER = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.05}
STRONG = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.3}


def on_crop(strengths=STRONG, per="frame"):
    return ColorJitter(**strengths, per=per, place="on_crop")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"), train=3, tracklets=2, frames=3)


@pytest.fixture(scope="module")
def train(tree):
    return index.build(tree).splits["train"]


def dataset(tree, train, color_jitter=None, **options):
    return TrackletDataset(train, tree, clip=CLIP, train=True, color_jitter=color_jitter, **options)


@pytest.mark.parametrize("per", ["frame", "clip"])
@pytest.mark.parametrize("decoder", ["fast", "pillow"])
def test_each_frame_is_decoded_jittered_and_resized(tree, train, per, decoder):
    options = on_crop(per=per)
    made = dataset(tree, train, options, decoder=decoder)
    for number, tracklet in enumerate(train):
        seed = 100 + number
        sample = made[Draw(number, seed)]
        parameters = jitter.of_clip(options, CLIP.frames, seed)
        for slot in range(CLIP.frames):  # three frames: the last one comes twice
            name = tracklet.frames[min(slot, 2)]
            with Image.open(tree / tracklet.path / name) as image:
                crop = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
            own = jitter.Jitter(
                parameters.orders[slot : slot + 1], parameters.factors[slot : slot + 1]
            )
            changed = jitter.apply(crop, own, options)[0].permute(1, 2, 0).numpy()
            size = (CLIP.width, CLIP.height)
            resized = Image.fromarray(changed).resize(size, Image.Resampling.BICUBIC)
            assert np.array_equal(sample.frames[slot].permute(1, 2, 0).numpy(), np.array(resized))


def test_the_last_frame_of_a_short_tracklet_has_two_jitters(tree, train):
    frames = dataset(tree, train, on_crop())[Draw(0, 1)].frames
    assert not torch.equal(frames[2], frames[3])
    per_clip = dataset(tree, train, on_crop(per="clip"))[Draw(0, 1)].frames
    assert torch.equal(per_clip[2], per_clip[3])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_processes(tree, train, workers):
    made = dataset(tree, train, on_crop())
    batches = pk_batches(made.labels, batch_size=4, instances=2, seed=0, epoch=0)
    loaded = loader(made, batches, workers=0), loader(made, batches, workers=workers)
    for one, two in zip(*loaded, strict=True):
        assert torch.equal(one.frames, two.frames)


def test_augment_leaves_it_to_the_dataset():
    frames = torch.randint(0, 256, (2, 3, 3, 16, 8), dtype=torch.uint8)
    options = Augment(flip=0, erase=0, color_jitter=on_crop())
    assert torch.equal(augment(frames, options=options, seeds=[1, 2]), normalize(frames))


def test_after_the_resize_is_the_datasets_no_business(tree, train):
    plain, other = dataset(tree, train), dataset(tree, train, ColorJitter(**STRONG))
    assert torch.equal(plain[0].frames, other[0].frames)


def test_with_the_papers_strengths_both_places_nearly_agree(tree, train):
    """Not the same operation: clipping and the mean of contrast do not commute with the resize."""
    after = Augment(flip=0, erase=0, color_jitter=ColorJitter(**PAPER))
    plain, changed = dataset(tree, train), dataset(tree, train, on_crop(PAPER))
    differences, changes = [], []
    for number in range(len(train)):
        draw = Draw(number, number)
        expected = augment(plain[draw].frames[None], options=after, seeds=[number])[0]
        differences.append((normalize(changed[draw].frames) - expected).abs().mean())
        changes.append((normalize(plain[draw].frames) - expected).abs().mean())
    assert 0 < np.mean(differences) < 0.1 * np.mean(changes)


def test_the_decoded_crop_is_left_as_it_was():
    pixels = np.full((6, 4, 3), 128, np.uint8)
    changed = jitter.on_crop(pixels, jitter.of_clip(on_crop(), 1, 0), 0, on_crop())
    assert changed.shape == pixels.shape
    assert (changed != pixels).any()
    assert (pixels == 128).all()

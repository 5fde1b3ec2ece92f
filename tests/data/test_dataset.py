import multiprocessing
import os
import signal
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import Clip, ColorJitter
from reid.data import index
from reid.data.augment import draw_jitter, jitter
from reid.data.dataset import TrackletDataset, decode, dense_labels, resize
from reid.data.loading import loader
from reid.data.sampler import Draw, pk_batches, sequential_batches
from reid.errors import UserError
from tests.trees import make_tree

CLIP = Clip(frames=4, height=32, width=16)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("dataset"), train=3, tracklets=2, frames=9)


@pytest.fixture
def own_tree(tmp_path):
    return make_tree(tmp_path, train=2, frames=4)


def dataset(root, *, train=True, seed=5, clip=CLIP, **options):
    tracklets = index.build(root).splits["train"]
    return TrackletDataset(tracklets, root, clip=clip, train=train, seed=seed, **options)


def test_a_clip_is_what_pillow_gives(tree):
    data = dataset(tree, train=False)
    tracklet, clip = data.tracklets[3], data[3]
    assert clip.frames.shape == (1, 4, 3, 32, 16)
    assert clip.frames.dtype == torch.uint8
    for slot, position in enumerate([0, 2, 4, 6]):
        with Image.open(tree / tracklet.path / tracklet.frames[position]) as image:
            expected = np.array(image.convert("RGB").resize((16, 32), Image.Resampling.BICUBIC))
            assert clip.heights[0, slot] == image.height
        difference = clip.frames[0, slot].int() - torch.from_numpy(expected).permute(2, 0, 1)
        assert difference.abs().max() <= 2
    assert clip.camera.tolist() == [tracklet.camera]
    known = [tracklet.altitude, tracklet.distance, tracklet.angle]
    assert torch.equal(clip.metadata, torch.tensor([known]))
    assert clip.index.tolist() == [3]


def test_labels_are_dense_in_the_order_of_identities(tree):
    tracklets = dataset(tree).tracklets
    assert dense_labels(tracklets) == [t.identity - 1 for t in tracklets]
    assert dense_labels([tracklets[-1], tracklets[0]]) == [1, 0]


def test_unknown_or_hidden_metadata_is_nan(tree):
    assert dataset(tree)[0].metadata.isnan().all()
    hidden = dataset(tree, metadata=False)
    assert not dataset(tree)[3].metadata.isnan().any()
    assert hidden[3].metadata.isnan().all()


def test_short_tracklets_repeat_their_last_frame(tree):
    clip = dataset(tree, train=False, clip=Clip(frames=12, height=32, width=16))[0]
    for slot in (9, 10, 11):
        assert torch.equal(clip.frames[0, slot], clip.frames[0, 8])
        assert clip.heights[0, slot] == clip.heights[0, 8]


def test_training_frames_depend_on_both_seeds(tree):
    def heights(seed, draw):
        return torch.stack([dataset(tree, seed=seed)[Draw(i, draw)].heights for i in range(6)])

    assert torch.equal(heights(1, 1), heights(1, 1))
    assert not torch.equal(heights(1, 1), heights(1, 2))
    assert not torch.equal(heights(1, 1), heights(2, 1))


@pytest.mark.parametrize("jitter", [None, ColorJitter(brightness=0.5, hue=0.3, place="on_crop")])
def test_batches_are_the_same_for_any_number_of_workers(tree, jitter):
    data = dataset(tree, color_jitter=jitter)
    batches = pk_batches(data.labels, stage="stage2", batch_size=4, instances=2, seed=0, epoch=0)
    expected = list(loader(data, batches, workers=0))
    for batch, planned in zip(expected, batches, strict=True):
        assert batch.index.tolist() == [draw.index for draw in planned]
        assert batch.seed == tuple(draw.seed for draw in planned)
        assert batch.label.tolist() == [data.labels[draw.index] for draw in planned]
    for workers in (1, 2):
        for one, two in zip(expected, loader(data, batches, workers=workers), strict=True):
            for field in fields(one):
                if field.name != "seed":
                    same = [getattr(batch, field.name).float() for batch in (one, two)]
                    torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)
    # From the middle of an epoch: what a resumed training loads.
    for one, two in zip(expected[1:], loader(data, batches[1:], workers=2), strict=True):
        assert torch.equal(one.frames, two.frames)
        assert one.seed == two.seed


def test_loading_leaves_the_global_random_state_alone(tree):
    data = dataset(tree)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - it is tested
    list(loader(data, sequential_batches(4, batch_size=2), workers=1))
    list(loader(data, sequential_batches(4, batch_size=2), workers=0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, path.stat().st_size - 40), "is not a whole JPEG"),
        (Path.unlink, "is missing"),
    ],
)
def test_damaged_frames_are_one_line_naming_the_file(own_tree, workers, damage, message):
    data = dataset(own_tree, train=False)
    tracklet = data.tracklets[4]
    damage(own_tree / tracklet.path / tracklet.frames[3])
    with pytest.raises(UserError, match=rf"_00003\.jpg {message}") as caught:
        list(loader(data, sequential_batches(6, batch_size=2), workers=workers))
    assert "\n" not in str(caught.value)


class _Dying(TrackletDataset):
    def load(self, keys):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_clear_error(tree):
    data = _Dying(dataset(tree).tracklets, tree, clip=CLIP, train=False)
    with pytest.raises(UserError, match=r"data-loading process died.*runtime\.workers"):
        list(loader(data, sequential_batches(2, batch_size=1), workers=1))


class _Signaled(TrackletDataset):
    def load(self, keys):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        return super().load(keys)


def test_workers_leave_signals_to_the_trainer(tree):
    """Slurm and terminals signal them too, while the trainer still needs their batches."""
    data = _Signaled(dataset(tree).tracklets, tree, clip=CLIP, train=False)
    assert len(list(loader(data, sequential_batches(4, batch_size=1), workers=2))) == 4


def test_no_batches_are_no_work(tree):
    assert list(loader(dataset(tree), [], workers=1)) == []


def test_stopping_early_leaves_no_process_behind(tree):
    data = dataset(tree)
    for _ in range(3):
        for batch in loader(data, sequential_batches(6, batch_size=1), workers=2):
            assert batch.index.tolist() == [0]
            break
    assert not multiprocessing.active_children()


# -- color jitter before the resize ---------------------------------------------------------------

STRONG = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.3}


@pytest.mark.parametrize("per", ["frame", "clip"])
def test_each_crop_is_decoded_jittered_and_resized(tree, per):
    options = ColorJitter(**STRONG, per=per, place="on_crop")
    data = dataset(tree, color_jitter=options, clip=Clip(frames=12, height=32, width=16))
    frames = data[Draw(1, 100)].frames[0]
    drawn = draw_jitter(options, 12, 100)
    for slot in range(12):  # nine frames, one a chunk: the last one repeats
        tracklet = data.tracklets[1]
        crop = decode((tree / tracklet.path / tracklet.frames[min(slot, 8)]).read_bytes(), name="")
        expected = resize(jitter(crop[None], drawn[slot : slot + 1])[0], 32, 16)
        assert torch.equal(frames[slot], expected)
    assert torch.equal(frames[10], frames[11]) == (per == "clip")


def test_jitter_after_the_resize_is_not_the_datasets(tree):
    plain, other = dataset(tree), dataset(tree, color_jitter=ColorJitter(**STRONG))
    assert torch.equal(plain[0].frames, other[0].frames)

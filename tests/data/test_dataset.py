import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import Clip
from reid.data import index
from reid.data.dataset import TrackletDataset, dense_labels
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


def test_a_sample_is_what_pillow_gives(tree):
    data = dataset(tree, train=False)
    tracklet, sample = data.tracklets[3], data[3]
    assert sample.frames.shape == (4, 3, 32, 16)
    assert sample.frames.dtype == torch.uint8
    for slot, position in enumerate([0, 2, 4, 6]):
        with Image.open(tree / tracklet.path / tracklet.frames[position]) as image:
            expected = image.convert("RGB").resize((16, 32), Image.Resampling.BICUBIC)
            assert sample.heights[slot] == image.height
        assert np.array_equal(sample.frames[slot].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert sample.camera == tracklet.camera
    known = [tracklet.altitude, tracklet.distance, tracklet.angle]
    assert torch.equal(sample.metadata, torch.tensor(known))
    assert sample.index == 3


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
    sample = dataset(tree, train=False, clip=Clip(frames=12, height=32, width=16))[0]
    for slot in (9, 10, 11):
        assert torch.equal(sample.frames[slot], sample.frames[8])
        assert sample.heights[slot] == sample.heights[8]


def test_training_frames_depend_on_both_seeds(tree):
    def heights(seed, draw):
        return torch.stack([dataset(tree, seed=seed)[Draw(i, draw)].heights for i in range(6)])

    assert torch.equal(heights(1, 1), heights(1, 1))
    assert not torch.equal(heights(1, 1), heights(1, 2))
    assert not torch.equal(heights(1, 1), heights(2, 1))


def test_batches_are_the_same_for_any_number_of_workers(tree):
    data = dataset(tree)
    batches = pk_batches(data.labels, batch_size=4, instances=2, seed=0, epoch=0)
    results = [list(loader(data, batches, workers=workers)) for workers in (0, 1, 2)]
    for batch, planned in zip(results[0], batches, strict=True):
        assert batch.index.tolist() == [draw.index for draw in planned]
        assert batch.seed == tuple(draw.seed for draw in planned)
        assert batch.label.tolist() == [data.labels[draw.index] for draw in planned]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one.frames, two.frames)
            assert torch.equal(one.heights, two.heights)
            assert torch.equal(one.metadata.nan_to_num(-1), two.metadata.nan_to_num(-1))
            assert one.index.tolist() == two.index.tolist()


def test_loading_leaves_the_global_random_state_alone(tree):
    data = dataset(tree)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - it is tested
    list(loader(data, sequential_batches(4, batch_size=2), workers=1))
    list(loader(data, sequential_batches(4, batch_size=2), workers=0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def not_an_image(path):
    path.write_bytes(b"nothing of the kind")


def png(path):
    Image.new("RGB", (4, 8)).save(path, format="PNG")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"_00003\.jpg is not a whole JPEG"),
        (not_an_image, r"_00003\.jpg is not a whole JPEG"),
        (png, r"_00003\.jpg is not a whole JPEG"),
        (lambda path: path.unlink(), r"_00003\.jpg is missing"),
    ],
)
def test_damaged_frames_are_one_line_naming_the_file(own_tree, workers, damage, message):
    data = dataset(own_tree, train=False)
    tracklet = data.tracklets[4]
    damage(own_tree / tracklet.path / tracklet.frames[3])
    with pytest.raises(UserError, match=message) as caught:
        list(loader(data, sequential_batches(6, batch_size=2), workers=workers))
    assert "\n" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_gray_frames_become_rgb(own_tree):
    data = dataset(own_tree, train=False)
    path = own_tree / data.tracklets[0].path / data.tracklets[0].frames[0]
    Image.open(path).convert("L").save(path)
    red, green, blue = data[0].frames[0]
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


class _Dying(TrackletDataset):
    def load(self, keys, out=None):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_clear_error(tree):
    data = _Dying(dataset(tree).tracklets, tree, clip=CLIP, train=False)
    with pytest.raises(UserError, match=r"data-loading process died.*runtime\.workers"):
        list(loader(data, sequential_batches(2, batch_size=1), workers=1))


def test_batches_that_are_kept_are_never_overwritten(tree):
    """More than there are slots, and by a view of the frames only."""
    data = dataset(tree)
    batches = [[Draw(i % 6, seed)] for seed, i in enumerate(range(60))]
    expected = [data.load(batch).frames for batch in batches]
    kept = [batch.frames[0, 1:] for batch in loader(data, batches, workers=2)]
    for one, two in zip(kept, expected, strict=True):
        assert torch.equal(one, two[0, 1:])
    dropped = [int(b.frames.sum()) for b in loader(data, batches, workers=2)]
    assert dropped == [int(frames.sum()) for frames in expected]


def test_no_batches_are_no_work(tree):
    assert list(loader(dataset(tree), [], workers=1)) == []


def test_stopping_early_leaves_no_process_behind(tree):
    data = dataset(tree)
    for _ in range(3):
        for batch in loader(data, sequential_batches(6, batch_size=1), workers=2):
            assert batch.index.tolist() == [0]
            break
    assert not multiprocessing.active_children()

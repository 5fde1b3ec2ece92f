import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.sampler import Draw, pk_batches, sample_frames, sequential_batches
from reid.errors import UserError

lengths = st.integers(1, 200)
counts = st.integers(1, 20)


def chunks(n, frames):
    """Slow oracle: the candidates of every slot."""
    positions = list(range(n)) + [n - 1] * max(0, frames - n)
    size = len(positions) // frames
    cut = [positions[i * size : (i + 1) * size] for i in range(frames - 1)]
    return [*cut, positions[(frames - 1) * size :]]


@given(lengths, counts, st.integers(0, 2**32))
def test_training_takes_one_random_frame_of_each_chunk(n, frames, seed):
    picked = sample_frames(n, frames, rng=np.random.default_rng(seed))
    assert len(picked) == frames
    assert all(p in chunk for p, chunk in zip(picked, chunks(n, frames), strict=True))


def test_training_reaches_every_frame_of_every_chunk():
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_frames(35, 16, rng=rng) for _ in range(400)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == chunks(35, 16)


@given(lengths, counts)
def test_test_takes_the_first_of_each_chunk(n, frames):
    assert sample_frames(n, frames).tolist() == [chunk[0] for chunk in chunks(n, frames)]
    assert sample_frames(31, 16).tolist() == list(range(16))


@given(lengths, counts)
def test_centers_are_spread_over_the_whole(n, frames):
    picked = sample_frames(n, frames, test="center")
    if n <= frames:
        assert picked.tolist() == [min(i, n - 1) for i in range(frames)]
    else:
        assert picked.tolist() == [int((i + 0.5) * n / frames) for i in range(frames)]


@st.composite
def labeled(draw):
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=8))
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.Random(draw(st.integers())).shuffle(labels)
    return labels, draw(st.integers(1, 4))


@given(labeled(), st.integers(0, 2**31), st.integers(0, 100))
def test_pk_batches_are_chunks_of_k_of_one_identity(case, seed, epoch):
    labels, instances = case
    batches = pk_batches(
        labels,
        stage="stage2",
        batch_size=2 * instances,
        instances=instances,
        seed=seed,
        epoch=epoch,
    )
    sizes = Counter(labels)
    used = Counter()
    for batch in batches:
        assert len(batch) == 2 * instances
        for start in range(0, len(batch), instances):
            chunk = [labels[draw.index] for draw in batch[start : start + instances]]
            assert len(set(chunk)) == 1
            used[chunk[0]] += instances
    # Each identity appears floor(size / K) times (once if smaller); one odd chunk may be dropped.
    due = {label: max(size // instances, 1) * instances for label, size in sizes.items()}
    assert all(used[label] <= due[label] for label in due)
    assert sum(due.values()) - sum(used.values()) in (0, instances)
    # Without replacement where the identity is large enough.
    times = Counter(draw.index for batch in batches for draw in batch)
    assert all(n == 1 for index, n in times.items() if sizes[labels[index]] >= instances)


def test_pk_batches_repeat_by_seed_and_epoch_only():
    labels = [i // 8 for i in range(80)]

    def batches(seed, epoch):
        return pk_batches(
            labels, stage="stage2", batch_size=16, instances=8, seed=seed, epoch=epoch
        )

    assert batches(1, 2) == batches(1, 2) != batches(2, 2)
    epochs = [batches(1, epoch) for epoch in range(20)]
    orders = {tuple(draw.index for batch in epoch for draw in batch) for epoch in epochs}
    seeds = [draw.seed for epoch in epochs for batch in epoch for draw in batch]
    assert len(orders) == len(epochs)
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_too_few_tracklets_for_one_batch_are_an_error(stage):
    with pytest.raises(UserError, match=rf"one batch of 16; lower {stage}\.batch_size"):
        pk_batches([0, 0, 0], stage=stage, batch_size=16, instances=8, seed=0, epoch=0)


def test_sequential_batches_keep_the_order():
    batches = sequential_batches(5, batch_size=2)
    assert [[draw.index for draw in batch] for batch in batches] == [[0, 1], [2, 3], [4]]
    assert all(isinstance(draw, Draw) for batch in batches for draw in batch)

"""Batches and frames of the paper's Tables 2 to 4, counted by hand (MODEL section 2)."""

from collections import Counter

import numpy as np
import pytest

from reid.data.sampler import pk_batches, sample_frames

# Tracklets of four identities. In chunks of 8: 20 -> 2 (4 dropped), 8 -> 1, 5 -> 1 (drawn with
# replacement), 17 -> 2 (1 dropped). Six chunks, 48 tracklets an epoch.
TRACKLETS = (20, 8, 5, 17)
LABELS = [label for label, count in enumerate(TRACKLETS) for _ in range(count)]


@pytest.mark.parametrize(
    ("batch_size", "batches", "chunks"),
    [(16, 3, 2), (24, 2, 3), (48, 1, 6)],
    ids=["Table 2, both stages", "Table 4, stage 2", "Table 4, stage 1"],
)
def test_batches_of_the_tables(batch_size: int, batches: int, chunks: int) -> None:
    for epoch in range(5):
        found = pk_batches(LABELS, batch_size=batch_size, instances=8, seed=1, epoch=epoch)
        assert [len(batch) for batch in found] == [batch_size] * batches
        for batch in found:
            labels = [LABELS[draw.index] for draw in batch]
            eights = [labels[start : start + 8] for start in range(0, batch_size, 8)]
            assert len(eights) == chunks
            assert all(len(set(eight)) == 1 for eight in eights)
        whole = Counter(LABELS[draw.index] for batch in found for draw in batch)
        assert whole == {0: 16, 1: 8, 2: 8, 3: 16}


def test_an_epoch_repeats_no_tracklet_but_of_small_identities() -> None:
    (batch,) = pk_batches(LABELS, batch_size=48, instances=8, seed=3, epoch=0)
    drawn = Counter(draw.index for draw in batch)
    small = {index for index, label in enumerate(LABELS) if label == 2}
    assert all(count == 1 for index, count in drawn.items() if index not in small)
    assert sum(count for index, count in drawn.items() if index in small) == 8


@pytest.mark.parametrize(
    ("n", "positions"),
    [
        # 16 chunks of one, two, three frames: the first of each at test (Table 3).
        (16, list(range(16))),
        (31, list(range(16))),
        (32, list(range(0, 32, 2))),
        (35, list(range(0, 32, 2))),
        (50, list(range(0, 48, 3))),
        (5, [0, 1, 2, 3, 4, *[4] * 11]),
        (1, [0] * 16),
    ],
)
def test_sixteen_frames_at_test(n: int, positions: list[int]) -> None:
    assert sample_frames(n, 16).tolist() == positions


def test_sixteen_frames_in_training() -> None:
    """Of 35: fifteen chunks of two frames, and the last with the remainder, 30 to 34."""
    rng = np.random.default_rng(0)
    drawn = np.array([sample_frames(35, 16, rng=rng) for _ in range(300)])
    chunks = [[2 * chunk, 2 * chunk + 1] for chunk in range(15)] + [[30, 31, 32, 33, 34]]
    assert [sorted(set(column)) for column in drawn.T.tolist()] == chunks

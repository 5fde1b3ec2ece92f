"""Work over rows and pairs: everything once, nothing shared at the same time, errors raised."""

from collections import Counter
from threading import Lock
from time import sleep

import pytest

from reid.retrieval.threads import over_pairs, over_rows


@pytest.mark.parametrize("rows", [0, 1, 5, 100])
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_ranges_cover_the_rows_once(rows, threads):
    seen = []
    over_rows(lambda start, stop, to: to.extend(range(start, stop)), rows, seen, threads=threads)
    assert sorted(seen) == list(range(rows))


@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_pair_once_and_no_block_in_two_hands(size, threads):
    seen, busy, lock = Counter(), Counter(), Lock()

    def work(a, b):
        with lock:
            seen[a, b] += 1
            busy.update({a, b})
            assert max(busy.values()) == 1
        sleep(0.001)
        with lock:
            busy.subtract({a, b})

    over_pairs(work, size, threads=threads)
    assert seen == Counter((a, b) for a in range(size) for b in range(a, size))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_ends_the_work_and_is_raised(threads):
    calls = []

    def work(a, b):
        calls.append((a, b))
        if len(calls) == 4:
            raise ValueError("fourth")

    with pytest.raises(ValueError, match="fourth"):
        over_pairs(work, 20, threads=threads)
    assert len(calls) < 4 + 2 * threads
    over_pairs(lambda *_: None, 4, threads=threads)  # the pool still works
    with pytest.raises(ZeroDivisionError):
        over_rows(lambda start, stop: 1 // 0, 10, threads=threads)

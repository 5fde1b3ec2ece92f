"""Run a compiled kernel on ranges of its rows, one range per core.

Kernels release the interpreter lock, so plain threads suffice: no OpenMP runtime fights with
that of the matrix products, and compilation stays short and cacheable.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any


def available_cores() -> int:
    """Cores this process may run on (its affinity mask, which Slurm and taskset set)."""
    return len(os.sched_getaffinity(0))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="reid")


def over_rows(kernel: Callable[..., None], rows: int, *arguments: Any, threads: int) -> None:
    """Call `kernel(start, stop, *arguments)` on `threads` ranges that cover `range(rows)`.

    Exceptions of the kernel are raised here, after every range has ended.
    """
    parts = max(1, min(threads, rows))
    bounds = [rows * part // parts for part in range(parts + 1)]
    if parts == 1:
        kernel(0, rows, *arguments)
        return
    running = [
        _pool(parts).submit(kernel, start, stop, *arguments) for start, stop in pairwise(bounds)
    ]
    for part in running:
        part.exception()
    for part in running:
        part.result()

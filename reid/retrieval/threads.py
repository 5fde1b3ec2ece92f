"""Run compiled kernels and matrix products on all cores, by plain threads.

Kernels and products release the interpreter lock. So no OpenMP runtime fights with that of the
matrix products, whose own threads wait in loops that cost the others their core, and compilation
stays short and cacheable.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Condition
from typing import Any

import numpy  # noqa: F401 - its matrix library must be there when the controller looks
from threadpoolctl import ThreadpoolController

from reid.errors import UserError


def available_cores() -> int:
    """Threads to use: what the matrix library would, which follows the limits set around it.

    Those are the affinity of the process (Slurm, taskset) and OMP_NUM_THREADS, by which
    Snakemake hands a job its cores.
    """
    pools = _controller().select(user_api="blas").info()
    return int(min([len(os.sched_getaffinity(0)), *(pool["num_threads"] for pool in pools)]))


def cores(threads: int | None) -> int:
    """Threads to use: those asked for, or what is available. Raises UserError on none."""
    if threads is None:
        return available_cores()
    if threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    return threads


def over_rows(kernel: Callable[..., None], rows: int, *arguments: Any, threads: int) -> None:
    """Call `kernel(start, stop, *arguments)` on `threads` ranges that cover `range(rows)`.

    Exceptions of the kernel are raised here, after every range has ended.
    """
    parts = max(1, min(threads, rows))
    if parts == 1:
        kernel(0, rows, *arguments)
        return
    bounds = [rows * part // parts for part in range(parts + 1)]
    pool = _pool(parts)
    _finish([pool.submit(kernel, start, stop, *arguments) for start, stop in pairwise(bounds)])


def over_pairs(work: Callable[[int, int], None], size: int, *, threads: int) -> None:
    """Call `work(a, b)` for all 0 <= a <= b < size, each once, in no certain order.

    Two calls that run at the same time never share an a or b, so that `work` may write what
    belongs to either. The first exception is raised here, after the calls that were running
    have ended.
    """
    waiting = [(a, b) for a in range(size) for b in range(a, size)]
    busy: set[int] = set()
    change = Condition()

    def take() -> tuple[int, int] | None:
        with change:
            while waiting:
                for place, pair in enumerate(waiting):
                    if busy.isdisjoint(pair):
                        busy.update(pair)
                        return waiting.pop(place)
                change.wait()
            return None

    def run() -> None:
        while pair := take():
            try:
                work(*pair)
            except BaseException:
                waiting.clear()
                raise
            finally:
                with change:
                    busy.difference_update(pair)
                    change.notify_all()

    workers = max(1, min(threads, (size + 1) // 2))
    if workers == 1:
        run()
        return
    pool = _pool(workers)
    _finish([pool.submit(run) for _ in range(workers)])


@contextmanager
def one_thread_per_product() -> Iterator[None]:
    """Matrix products inside use one thread each, for callers that bring their own threads."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="reid")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _finish(running: list[Future[None]]) -> None:
    for part in running:
        part.exception()
    for part in running:
        part.result()

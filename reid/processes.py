"""Worker processes that end with the process that started them."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes that end when this process does, even if it is killed.

    `ProcessPoolExecutor` alone leaves its workers waiting for tasks forever.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, as soon as its parent has ended."""
    Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # a pipe that the kernel closes when the parent is gone
    os._exit(1)

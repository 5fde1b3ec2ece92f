"""Batches from loading processes."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset

from reid.data.dataset import Batch, TrackletDataset
from reid.data.sampler import Draw
from reid.errors import UserError
from reid.processes import end_with_parent


def loader(
    dataset: TrackletDataset, batches: Sequence[Sequence[Draw]], *, workers: int
) -> Iterator[Batch]:
    """Load `batches` in their order with `workers` processes (0: in this one).

    The batches are the same for any number of processes, the global random state is left alone.
    With a GPU they come in page-locked memory. Raises UserError for an unreadable frame, from any
    process, or when a loading process dies.
    """
    if workers:
        _demand_locks()
    loaded = DataLoader(
        cast("Dataset[Sequence[Draw]]", batches),
        batch_size=None,  # an item is the draws of a whole batch
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        collate_fn=partial(_load, dataset),
        worker_init_fn=_start_process,
        # Else the loader draws its base seed from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    with naming_dead_processes():
        for batch in loaded:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _demand_locks() -> None:
    """Raise UserError where processes cannot share a lock, which is a file in /dev/shm."""
    try:
        multiprocessing.Lock()
    except (OSError, ImportError) as error:  # ImportError: of a system without such locks
        raise UserError(
            f"data-loading processes cannot be started ({error}): see that /dev/shm is there, "
            "writable and not full, or set runtime.workers to 0"
        ) from None


def _load(dataset: TrackletDataset, draws: Sequence[Draw]) -> Batch | UserError:
    """A batch. An error is returned: torch would raise it again with another message."""
    try:
        return dataset.load(draws)
    except UserError as error:
        return error


def _start_process(_: int) -> None:
    """Set up a loading process.

    It leaves SIGTERM and Ctrl-C to the trainer: Slurm and terminals send them to the whole process
    group, and the trainer still needs batches to finish its step and save. It ends with the
    trainer: torch alone would leave it waiting for a reader of its last batch.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


@contextmanager
def naming_dead_processes() -> Iterator[None]:
    """A UserError for a loading process that died, instead of torch's RuntimeError.

    torch raises it from a signal handler, wherever this process happens to be at that moment: in
    the midst of a training step as well. So all work of a process that loads is done in here.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a data-loading process died ({str(error).splitlines()[0]}): often memory ran "
            "out: lower runtime.workers or ask for more memory"
        ) from error

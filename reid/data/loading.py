"""Batches from loading processes, through memory that is used again and again.

Fresh memory is what a loader pays for most: the first touch of a page costs more than the copy into
it. So processes decode into slots of one shared mapping that is made before they are forked; only
the number of a slot travels. A slot is free again when the last tensor that looks into it is gone,
however long the consumer keeps it; when none is free, the batch travels by itself.
"""

import mmap
import signal
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from reid.data.dataset import Batch, TrackletDataset
from reid.data.sampler import Draw
from reid.errors import UserError

_PREFETCH = 2  # batches under way in each process


def loader(
    dataset: TrackletDataset, batches: Sequence[Sequence[Draw]], *, workers: int
) -> Iterator[Batch]:
    """Load `batches` in their order with `workers` processes (0: in this one).

    The batches are the same for any number of processes, the global random state is left alone.
    With a GPU they come in page-locked memory. Raises UserError for an unreadable frame, from
    whatever process, or when a loading process dies.
    """
    loaded = _from_processes(dataset, batches, workers) if workers else map(dataset.load, batches)
    pin = torch.cuda.is_available()
    for batch in loaded:
        yield batch.pin_memory() if pin else batch


def _from_processes(
    dataset: TrackletDataset, batches: Sequence[Sequence[Draw]], workers: int
) -> Iterator[Batch]:
    dataset.prepare()
    largest = max(map(len, batches), default=0)
    # Those under way, the one that the consumer holds, and one more to begin with.
    ring = _Ring(dataset.batch_shape(largest), workers * _PREFETCH + 2)
    processes = DataLoader(
        _Work(dataset, batches, ring.slots),
        batch_size=None,
        sampler=_Plan(ring, len(batches)),
        num_workers=workers,
        prefetch_factor=_PREFETCH,
        collate_fn=_as_it_is,
        worker_init_fn=_ignore_signals,
        multiprocessing_context="fork",  # the slots are inherited
        # Else the loader draws its base seed from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    with naming_dead_processes():
        for done in processes:
            if isinstance(done, UserError):
                raise done
            yield ring.batch(done)


def _ignore_signals(_: int) -> None:
    """Leave SIGTERM and Ctrl-C to the trainer: Slurm and terminals send them to its processes too,
    and it still needs batches to finish its step and save. It ends its processes itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def naming_dead_processes() -> Iterator[None]:
    """A UserError for a loading process that died, instead of torch's RuntimeError.

    torch raises it from a signal handler, wherever this process happens to be at that moment: in
    the midst of a training step as well. So whoever loads does all its work in here.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a data-loading process died ({str(error).splitlines()[0]}): often memory ran out; "
            "lower runtime.workers or ask for more memory"
        ) from error


class _Ring:
    """Slots for the frames of a batch, shared with the processes forked after it was made."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        size = count * int(np.prod(shape))
        self.slots = np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8, size)
        self.slots = self.slots.reshape(count, *shape)
        self._free = deque(range(count))

    def take(self) -> int | None:
        """A free slot, if there is one."""
        return self._free.popleft() if self._free else None

    def batch(self, done: "_Done") -> Batch:
        """The batch with its frames; their slot is taken until no tensor looks into them."""
        if done.slot is None:
            return done.batch
        frames = self.slots[done.slot, : len(done.batch.label)]
        weakref.finalize(frames, self._free.append, done.slot)
        return replace(done.batch, frames=torch.from_numpy(frames))


@dataclass(frozen=True)
class _Task:
    number: int
    slot: int | None


@dataclass(frozen=True)
class _Done:
    """A loaded batch; with a slot, its frames are there and `batch.frames` is empty."""

    batch: Batch
    slot: int | None

    def __reduce__(self) -> tuple[object, ...]:
        # As NumPy arrays: torch would open a file for every tensor it sends.
        arrays = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in vars(self.batch).items()
        }
        return _unpack, (arrays, self.slot)


def _unpack(arrays: dict[str, Any], slot: int | None) -> _Done:
    fields: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }
    return _Done(Batch(**fields), slot)


class _Plan:
    """Task by task, when a process is ready for one: that is when a slot is chosen."""

    def __init__(self, ring: _Ring, count: int) -> None:
        self._ring = ring
        self._count = count

    def __iter__(self) -> Iterator[_Task]:
        return (_Task(number, self._ring.take()) for number in range(self._count))


class _Work(Dataset["_Done | UserError"]):
    """What a process does. A UserError is handed over as a value: torch re-raises them garbled."""

    def __init__(
        self, dataset: TrackletDataset, batches: Sequence[Sequence[Draw]], slots: np.ndarray
    ) -> None:
        self._dataset = dataset
        self._batches = batches
        self._slots = slots

    def __getitem__(self, task: _Task) -> "_Done | UserError":
        draws = self._batches[task.number]
        try:
            if task.slot is None:
                return _Done(self._dataset.load(draws), None)
            batch = self._dataset.load(draws, self._slots[task.slot, : len(draws)])
        except UserError as error:
            return error
        return _Done(replace(batch, frames=torch.empty(0, dtype=torch.uint8)), task.slot)


def _as_it_is(done: object) -> object:
    return done

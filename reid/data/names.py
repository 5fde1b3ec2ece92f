"""File names of a tracklet's frames at four bytes each: what differs is their number."""

import hashlib
import re
import string
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import overload

import numpy as np

_DIGITS = 9
_POWERS = 10 ** np.arange(_DIGITS, dtype=np.int32)[::-1]
_WORD = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Run:
    """Names `head NUMBER suffix` with the number padded by zeros to `width` digits (0: none)."""

    head: str
    width: int
    suffix: str
    numbers: np.ndarray
    """int32."""


class FrameNames(Sequence[str]):
    """A sequence of names that are made when asked for; equal to any sequence of the same."""

    __slots__ = ("_ends", "runs")

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)
        self._ends = tuple(accumulate(len(run.numbers) for run in self.runs))

    @classmethod
    def of(cls, names: Sequence[str]) -> "FrameNames":
        """Any names, in their order."""
        if isinstance(names, cls):
            return names
        return cls(
            Run(head, width, suffix, np.array([int(d or 0) for _, d, _ in own], np.int32))
            for (head, width, suffix), own in groupby(
                map(_split, names), lambda part: (part[0], len(part[1]), part[2])
            )
        )

    def digest(self) -> str:
        """Hash of all names."""
        made = hashlib.sha256()
        for run in self.runs:
            made.update(f"{run.head}\n{run.width}\n{run.suffix}\n{len(run.numbers)}\n".encode())
            made.update(run.numbers.astype("<i4").tobytes())
        return made.hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[str]: ...
    def __getitem__(self, key: int | slice) -> str | Sequence[str]:
        if isinstance(key, slice):
            return [self[position] for position in range(*key.indices(len(self)))]
        position = key + len(self) if key < 0 else key
        if not 0 <= position < len(self):
            raise IndexError(f"frame {key} of {len(self)}")
        place = bisect_right(self._ends, position)
        run = self.runs[place]
        number = run.numbers[position - self._ends[place]]  # counted from the end of the run
        return f"{run.head}{f'{number:0{run.width}d}' if run.width else ''}{run.suffix}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"FrameNames({list(self)})"


def group(names: Sequence[str]) -> list[Run]:
    """Runs of names that differ in their number only: sorted, and sorted by number within."""
    found: dict[tuple[str, int, str], list[int]] = {}
    for head, digits, suffix in map(_split, names):
        found.setdefault((head, len(digits), suffix), []).append(int(digits or 0))
    return [Run(*key, np.sort(np.array(found[key], np.int32))) for key in sorted(found)]


def uniform(rows: np.ndarray, first: str, place: int) -> Run | None:
    """The one run of all names, found without a look at each: what nearly every folder holds.

    `rows` are bytes (n, k) with a name from column `place` on, `first` is that of the first row.
    None unless the digits of the number are all that rows differ in.
    """
    head, digits, suffix = _split(first)
    if not digits or not first.isascii():
        return None
    start = place + len(head)
    end = start + len(digits)
    rows = np.ascontiguousarray(rows)
    values = rows[:, start:end] - np.uint8(ord("0"))
    as_next = rows[1:] == rows[:-1]
    as_next[:, start:end] = True
    if not (as_next.all() and values.max() < 10):
        return None
    numbers = values @ _POWERS[-len(digits) :]
    numbers.sort()
    return Run(head, len(digits), suffix, numbers)


def _split(name: str) -> tuple[str, str, str]:
    """Head, digits (at most 9, maybe none) and suffix: everything is a name."""
    stem, dot, word = name.rpartition(".")
    suffix = f".{word}" if dot and _WORD.fullmatch(word) else ""
    stem = name.removesuffix(suffix)
    digits = stem[len(stem.rstrip(string.digits)) :][-_DIGITS:]
    return stem[: len(stem) - len(digits)], digits, suffix

"""File names of a tracklet's frames at four bytes each: what differs is their number."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import overload

import numpy as np

_NAME = re.compile(r"(.*?)(\d{0,9})((?:\.\w+)?)", re.ASCII | re.DOTALL)
"""Everything is a name: what has no number has one of no digits."""


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
    uniform = _uniform(names)
    if uniform is not None:
        return [uniform]
    found: dict[tuple[str, int, str], list[int]] = {}
    for head, digits, suffix in map(_split, names):
        found.setdefault((head, len(digits), suffix), []).append(int(digits or 0))
    return [Run(*key, np.sort(np.array(found[key], np.int32))) for key in sorted(found)]


def _split(name: str) -> tuple[str, str, str]:
    """Head, digits (at most 9, maybe none) and suffix."""
    match = _NAME.fullmatch(name)
    assert match is not None  # the pattern matches every string
    return match[1], match[2], match[3]


def _uniform(names: Sequence[str]) -> Run | None:
    """The one run of all names, found without a look at each: what nearly every folder holds."""
    first = _NAME.fullmatch(names[0]) if names else None
    joined = "".join(names)
    if first is None or not first[2] or not joined.isascii():
        return None
    if set(map(len, names)) != {len(names[0])}:
        return None
    table = np.frombuffer(joined.encode(), np.uint8).reshape(len(names), -1)
    start, end = first.span(2)
    digits = table[:, start:end] - np.uint8(ord("0"))
    same = table == table[0]
    if not (same[:, :start].all() and same[:, end:].all() and (digits < 10).all()):
        return None
    numbers = digits @ (10 ** np.arange(end - start)[::-1])
    return Run(first[1], end - start, first[3], np.sort(numbers.astype(np.int32)))

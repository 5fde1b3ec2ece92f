"""`reid check`: decode the frames once, before a training finds out which are damaged.

check/damaged.csv    frames that cannot be used, and why: what dataset.damaged leaves out;
                     what it leaves out already is not looked at again and stays in the list
check/notes.csv      frames and tracklets that can be used but stand out
check/histograms.csv counts of crop heights and tracklet lengths by capture point
check/histograms.png the same to look at
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import simplejpeg

from reid.artifacts import SPLITS, Results
from reid.config import Config
from reid.data.chart import draw_histograms
from reid.data.damaged import COLUMNS, read_damaged
from reid.data.decode import decode
from reid.data.frames import Files
from reid.data.layout import Tracklet
from reid.data.stored import check_fresh, read_split
from reid.errors import UserError
from reid.files import replacing
from reid.processes import worker_pool
from reid.progress import Progress

HEIGHTS = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 65536)
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 1 << 20)
GROUPS = ("ground", *(f"point {number}" for number in range(1, 19)), "elsewhere")
LARGEST_SIDE = 2000
"""Pixels; a crop of a person is never larger."""


@dataclass(frozen=True)
class Seen:
    """What one tracklet looks like."""

    group: str
    length: int
    heights: tuple[int, ...] = ()
    """Of its whole frames, pixels."""
    damaged: tuple[tuple[str, str], ...] = ()
    """Path and reason of frames that cannot be used."""
    notes: tuple[tuple[str, str], ...] = ()


@dataclass
class Report:
    """What all tracklets look like together."""

    damaged: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    heights: dict[str, np.ndarray] = field(default_factory=dict)
    """Counts of frames by HEIGHTS, by group."""
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    """Counts of tracklets by LENGTHS, by group."""
    frames: int = 0

    def add(self, seen: Seen) -> None:
        """Take one tracklet in."""
        self.damaged += seen.damaged
        self.notes += seen.notes
        self.frames += len(seen.heights) + len(seen.damaged)
        for counts, edges, values in (
            (self.heights, HEIGHTS, seen.heights),
            (self.lengths, LENGTHS, (seen.length,)),
        ):
            own = np.histogram(values, edges)[0]
            counts[seen.group] = counts.get(seen.group, np.zeros(len(edges) - 1, int)) + own

    def write(self, folder: Path) -> None:
        """Write the four files of this report into `folder`."""
        _write_csv(folder / "damaged.csv", COLUMNS, self.damaged)
        _write_csv(folder / "notes.csv", ("path", "note"), self.notes)
        rows = [
            (group, quantity, low, high, int(count))
            for quantity, counts, edges in self._quantities
            for group in GROUPS
            if group in counts
            for (low, high), count in zip(pairwise(edges), counts[group], strict=True)
        ]
        _write_csv(folder / "histograms.csv", ("group", "quantity", "from", "below", "count"), rows)
        with replacing(folder / "histograms.png") as temporary:
            draw_histograms(
                [
                    (f"{quantity} ({'px' if edges is HEIGHTS else 'frames'})", edges, counts)
                    for quantity, counts, edges in self._quantities
                ],
                GROUPS,
            ).save(temporary, format="PNG")

    @property
    def _quantities(self) -> Sequence[tuple[str, dict[str, np.ndarray], Sequence[int]]]:
        return (
            ("crop height", self.heights, HEIGHTS),
            ("tracklet length", self.lengths, LENGTHS),
        )


def inspect(tracklet: Tracklet, root: Path, *, frames: int | None, least_height: int) -> Seen:
    """Decode a tracklet's frames, or `frames` of them evenly spread, and say what stands out.

    A tracklet whose median crop is lower than `least_height` pixels gets a note.
    """
    count = len(tracklet.frames)
    chosen: Iterable[int] = range(count)
    if frames is not None and frames < count:
        chosen = (np.arange(frames) * count // frames).tolist()
    files = Files(root)
    heights, sizes, damaged, notes = [], [], [], []
    for position in chosen:
        path, name = (
            f"{tracklet.folder}/{tracklet.frames[position]}",
            files.name(tracklet, position),
        )
        try:
            data = files.read(tracklet, position)
            sizes.append(len(data))
            height, width = decode(data, name=name).shape[:2]
        except UserError as error:
            damaged.append((path, str(error).removeprefix(f"{name} ").partition(": ")[0]))
            continue
        if max(height, width) > LARGEST_SIDE or min(height, width) < 2:
            damaged.append((path, f"absurd size {width} x {height}"))
            continue
        heights.append(height)
        colors = simplejpeg.decode_jpeg_header(data)[2]
        if colors != "YCbCr":
            notes.append((path, f"stored as {colors}, used as RGB"))
    if len(sizes) == count and tracklet.size not in (None, sum(sizes)):
        notes.append((tracklet.path, "frames have other sizes than when indexed: index again"))
    if heights and np.median(heights) < least_height:
        notes.append((tracklet.path, f"median crop height {np.median(heights):g} px"))
    point = tracklet.capture_point
    away = "ground" if tracklet.view == "ground" else "elsewhere"
    group = away if point is None else GROUPS[point]
    return Seen(group, count, tuple(heights), tuple(damaged), tuple(notes))


def check(
    tracklets: Sequence[Tracklet],
    root: Path,
    *,
    frames: int | None = None,
    least_height: int = 16,
    workers: int = 0,
    quiet: bool = True,
) -> Report:
    """Inspect tracklets with `workers` processes (0: in this one); see `inspect`."""
    look = partial(inspect, root=root, frames=frames, least_height=least_height)
    report = Report()
    progress = Progress("check", len(tracklets), "tracklets")
    for seen in _each(look, tracklets, workers):
        report.add(seen)
        if not quiet:
            progress.advance(note=f"{report.frames:,} frames, {len(report.damaged)} damaged")
    return report


def _each(look: "partial[Seen]", tracklets: Sequence[Tracklet], workers: int) -> Iterator[Seen]:
    if not workers:
        yield from map(look, tracklets)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(look, tracklets, chunksize=8)


def run(config: Config, *, frames: int | None, least_height: int) -> None:
    """`reid check`: inspect what is indexed, write the report.

    Raises UserError without index, and for less than one frame or pixel.
    """
    for flag, value in (("--frames", frames), ("--least-height", least_height)):
        if value is not None and value < 1:
            raise UserError(f"{flag} is {value}: expected at least 1")
    options, results = config.dataset, Results.of(config.dataset.name)
    known = {} if options.damaged is None else read_damaged(options.damaged)
    tracklets: list[Tracklet] = []
    for split in SPLITS:
        if split == "train" or split in options.protocols:
            check_fresh(options.root, results.index(split))
            tracklets += read_split(results.index(split))
    report = check(
        tracklets,
        options.root,
        frames=frames,
        least_height=least_height,
        workers=config.runtime.workers,
        quiet=False,
    )
    found = dict(report.damaged)
    report.damaged = list((known | found).items())
    folder = results.root / "check"
    report.write(folder)
    verdict = folder / "damaged.csv"
    for reason, count in Counter(found.values()).most_common(5):
        print(f"{count} frames: {reason}")
    print(f"{report.frames} frames seen, {len(found)} damaged: {verdict}")
    if left_out := len(known.keys() - found.keys()):
        print(f"{left_out} frames that {options.damaged} leaves out stay in that list")
    if found:
        print(
            f"to leave them out: dataset.damaged: {verdict}, within dataset.max_rejected_share "
            f"({options.max_rejected_share:g}), then `reid index`"
        )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

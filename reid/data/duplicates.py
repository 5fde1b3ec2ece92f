"""Frames of equal content: between people or between training and test they spoil a benchmark."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from reid.data.frames import Files
from reid.data.layout import Tracklet
from reid.files import replacing
from reid.progress import Progress


@dataclass(frozen=True)
class Duplicates:
    """Copies of frames; those in another tracklet are held against the first frame of all."""

    frames: int
    """Files looked at."""
    in_tracklet: int
    """Copies of a frame of the same tracklet."""
    in_identity: int
    """Copies in another tracklet of the same person, both in training or both in test."""
    bad: tuple[tuple[str, str, str], ...]
    """Path, path of the first, and what is wrong with that: `other identity` or `train and
    test`."""

    def summary(self) -> dict[str, int]:
        """Counts, for `summary.json`."""
        return {
            "frames": self.frames,
            "copies_in_tracklet": self.in_tracklet,
            "copies_in_identity": self.in_identity,
            "copies_between_identities": sum(why == "other identity" for *_, why in self.bad),
            "copies_in_train_and_test": sum(why == "train and test" for *_, why in self.bad),
        }

    def write(self, path: Path) -> None:
        """Write the bad ones as CSV, atomically."""
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(("path", "same_as", "problem"))
            writer.writerows(self.bad)


def find(
    splits: Mapping[str, Sequence[Tracklet]], root: Path, *, workers: int = 8, quiet: bool = True
) -> Duplicates:
    """Read every frame once and compare 64 bits of BLAKE2. Raises UserError if one is missing.

    A tracklet that several protocols use is one.
    """
    tracklets = list({t.path: t for t in chain(*splits.values())}.values())
    tracklets.sort(key=lambda t: t.subset != "train")
    files = Files(root)

    def hashes(tracklet: Tracklet) -> np.ndarray:
        digests = b"".join(
            hashlib.blake2b(files.read(tracklet, position), digest_size=8).digest()
            for position in range(len(tracklet.frames))
        )
        return np.frombuffer(digests, np.uint64)

    progress = Progress("duplicates", len(tracklets), "tracklets")
    parts = []
    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(hashes, tracklets):
            parts.append(part)
            if not quiet:
                progress.advance()
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    _, first, inverse = np.unique(
        np.concatenate([*parts, np.empty(0, np.uint64)]), return_index=True, return_inverse=True
    )
    # The first frame of each content in each tracklet, against the first of all.
    ours = np.unique(inverse * np.int64(len(parts) + 1) + owner, return_index=True)[1]
    ours = np.sort(ours[first[inverse[ours]] != ours])
    in_identity = 0
    bad = []
    for copy, source in zip(ours.tolist(), first[inverse[ours]].tolist(), strict=True):
        mine, theirs = tracklets[owner[copy]], tracklets[owner[source]]
        leak = (mine.subset == "train") != (theirs.subset == "train")
        if mine.identity == theirs.identity and not leak:
            in_identity += 1
            continue
        paths = [
            f"{tracklet.folder}/{tracklet.frames[frame - int(starts[owner[frame]])]}"
            for tracklet, frame in ((mine, copy), (theirs, source))
        ]
        bad.append((paths[0], paths[1], "train and test" if leak else "other identity"))
    in_tracklet = len(owner) - len(first) - len(ours)
    return Duplicates(len(owner), in_tracklet, in_identity, tuple(bad))

"""`reid check`: decode the frames once, before a training finds out which are damaged.

check/damaged.csv    frames that cannot be used, and why: what dataset.damaged leaves out;
                     frames already left out are not decoded again and stay in the list
check/notes.csv      frames and tracklets that can be used but stand out
check/duplicates.csv frames of equal content, of two people or in training and test
check/histograms.csv counts of crop heights and tracklet lengths by capture point
check/parts/         results of an interrupted check: the next one resumes from them
"""

import hashlib
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from reid.claim import remove_temporaries
from reid.config import Config
from reid.data.dataset import decode
from reid.data.frames import Files
from reid.data.lists import DAMAGED_COLUMNS, read_damaged, write_csv
from reid.data.stored import read_all
from reid.data.tracklet import Tracklet, identity_of
from reid.errors import UserError
from reid.files import replacing, sha256_of_json
from reid.paths import Results
from reid.processes import worker_pool
from reid.progress import Progress

TRACKLETS_A_PART = 32
PART = ("tracklet", "position", "height", "width", "mode", "bytes", "digest", "damage")
"""Columns."""


def inspect(
    tracklets: Sequence[Tracklet],
    root: Path,
    folder: Path,
    *,
    frames: int | None = None,
    workers: int = 0,
    quiet: bool = True,
) -> pd.DataFrame:
    """Decode all frames, or `frames` of each tracklet evenly spread: one row a frame.

    Columns: tracklet (position in `tracklets`), position, height, width (pixels), mode (of
    Pillow), bytes, digest (64 bits of BLAKE2), damage ("": none). `workers` processes write parts
    to `folder`, where an interrupted run continues.
    """
    starts = range(0, len(tracklets), TRACKLETS_A_PART)
    parts = [tracklets[start : start + TRACKLETS_A_PART] for start in starts]
    paths = [
        folder / f"{sha256_of_json([frames, *map(identity_of, part)])}.parquet" for part in parts
    ]
    missing = [part for part in zip(paths, parts, strict=True) if _read_part(part[0]) is None]
    progress = Progress("check", len(parts), "parts", done=len(parts) - len(missing))
    work = partial(_inspect_part, root=root, frames=frames)
    with worker_pool(workers) if workers else nullcontext() as pool:
        for _ in pool.map(work, missing) if pool else map(work, missing):
            if not quiet:
                progress.advance()
    tables = []
    for start, path in zip(starts, paths, strict=True):
        table = _read_part(path)
        if table is None:
            raise UserError(f"{path} was damaged while `reid check` ran: run it again")
        tables.append(table.assign(tracklet=table.tracklet + start))
    return pd.concat(tables, ignore_index=True)


def _read_part(path: Path) -> pd.DataFrame | None:
    """A finished part; None where there is none that is whole."""
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table if tuple(table.columns) == PART else None


def _inspect_part(part: tuple[Path, Sequence[Tracklet]], *, root: Path, frames: int | None) -> None:
    path, tracklets = part
    files, rows = Files(root), []
    for number, tracklet in enumerate(tracklets):
        count = len(tracklet.frames)
        step = count if frames is None else min(frames, count)
        rows += [
            (number, position, *_inspect_frame(files, tracklet, position))
            for position in (np.arange(step) * count // step).tolist()
        ]
    table = pd.DataFrame.from_records(rows, columns=PART)
    integers = dict.fromkeys(("tracklet", "position", "height", "width", "bytes"), np.int32)
    table = table.astype(
        {**integers, "digest": np.uint64, "mode": "category", "damage": "category"}
    )
    with replacing(path) as temporary:
        table.to_parquet(temporary, write_page_checksum=True)


def _inspect_frame(
    files: Files, tracklet: Tracklet, position: int
) -> tuple[int, int, str, int, int, str]:
    """Height, width, mode, bytes, digest, damage."""
    name, size, digest = files.name(tracklet, position), 0, 0
    try:
        data = files.read(tracklet, position)
        size = len(data)
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
        height, width = decode(data, name=name).shape[1:]
        return height, width, _mode(data), size, digest, ""
    except UserError as error:
        return 0, 0, "", size, digest, str(error).removeprefix(f"{name} ").partition(": ")[0]


def _mode(data: bytes) -> str:
    """Pillow's mode of an image, `unknown` for a JPEG that only torchvision reads."""
    try:
        with Image.open(BytesIO(data)) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError, LookupError):
        return "unknown"


Rows = list[tuple[str, ...]]


def damages(seen: pd.DataFrame, tracklets: Sequence[Tracklet]) -> dict[str, str]:
    """Reasons by path of frames that cannot be used."""
    bad = seen[seen.damage != ""]
    return dict(zip(_paths(bad, tracklets), bad.damage, strict=True))


def notes(seen: pd.DataFrame, tracklets: Sequence[Tracklet], *, least_height: int) -> Rows:
    """Path and note of what can be used but stands out: odd frames, low tracklets."""
    whole = seen[seen.damage == ""]
    odd = whole[(whole["mode"] != "RGB") | (whole.height < 2) | (whole.width < 2)]
    columns = zip(_paths(odd, tracklets), odd.width, odd.height, odd["mode"], strict=True)
    rows: Rows = [
        (path, f"{width} x {height} px, Pillow mode {mode}: used as RGB")
        for path, width, height, mode in columns
    ]
    medians = whole.groupby("tracklet").height.median()
    sums = seen.groupby("tracklet").bytes.agg(["sum", "size"])
    for number, tracklet in enumerate(tracklets):
        total, count = sums.loc[number]
        if count == len(tracklet.frames) and tracklet.size not in (None, total):
            note = "frames have other sizes than when indexed: index again"
            rows.append((tracklet.path, note))
        if medians.get(number, least_height) < least_height:
            rows.append((tracklet.path, f"median crop height {medians[number]:g} px"))
    return rows


def duplicates(seen: pd.DataFrame, tracklets: Sequence[Tracklet]) -> Rows:
    """Path, path of the first frame of equal content, and the problem with that.

    Between people, or between training and test, copies spoil a benchmark. A copy in another
    tracklet counts once; copies in tracklets of the same person and side are no problem.
    """
    copies = seen[(seen["bytes"] > 0) & seen.duplicated("digest", keep=False)]
    copies = copies.drop_duplicates(["digest", "tracklet"])
    first = copies.drop_duplicates("digest")[["digest", "tracklet", "position"]]
    later = copies[copies.duplicated("digest")]
    later = later.merge(first, how="left", on="digest", suffixes=("", "_first"))
    rows: Rows = []
    paths = zip(_paths(later, tracklets), _paths(later, tracklets, "_first"), strict=True)
    numbers = zip(later.tracklet, later.tracklet_first, strict=True)
    for pair, (a, b) in zip(paths, numbers, strict=True):
        copy, original = tracklets[a], tracklets[b]
        leak = (copy.subset == "train") != (original.subset == "train")
        if leak or copy.identity != original.identity:
            rows.append((*pair, "train and test" if leak else "other identity"))
    return rows


def histograms(seen: pd.DataFrame, tracklets: Sequence[Tracklet]) -> pd.DataFrame:
    """Counts of crop heights (whole frames) and of tracklet lengths, by capture point.

    `from` is a power of two; a row counts values from it to below its double.
    """
    groups = np.array([_group(tracklet) for tracklet in tracklets])
    whole = seen[seen.damage == ""]
    quantities = {
        "crop height": (groups[whole.tracklet], whole.height),
        "tracklet length": (groups, [len(tracklet.frames) for tracklet in tracklets]),
    }
    values = pd.concat(
        pd.DataFrame({"group": group, "quantity": quantity, "from": value})
        for quantity, (group, value) in quantities.items()
    )
    values["from"] = 2 ** np.log2(values["from"]).astype(int)
    return values.value_counts(sort=False).sort_index().reset_index()


def _paths(rows: pd.DataFrame, tracklets: Sequence[Tracklet], suffix: str = "") -> list[str]:
    """Paths of the frames that rows are of."""
    frames = zip(rows[f"tracklet{suffix}"], rows[f"position{suffix}"], strict=True)
    return [f"{tracklets[t].folder}/{tracklets[t].frames[position]}" for t, position in frames]


def _group(tracklet: Tracklet) -> str:
    if tracklet.capture_point is not None:
        return f"point {tracklet.capture_point:02}"
    return "ground" if tracklet.view == "ground" else "elsewhere"


def _is_part(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}\.parquet", name) is not None


def run(config: Config, *, frames: int | None, least_height: int) -> None:
    """`reid check`: inspect what is indexed, write the report.

    Raises UserError without index, and for less than one frame or pixel.
    """
    for flag, value in (("--frames", frames), ("--least-height", least_height)):
        if value is not None and value < 1:
            raise UserError(f"{flag} is {value}: expected at least 1")
    options = config.dataset
    known = {} if options.damaged is None else read_damaged(options.damaged)
    tracklets, folder = read_all(config), Results.of(config).root / "check"
    parts = folder / "parts"
    remove_temporaries(parts, _is_part)
    workers = config.runtime.workers
    seen = inspect(tracklets, options.root, parts, frames=frames, workers=workers, quiet=False)
    damaged, copies = damages(seen, tracklets), duplicates(seen, tracklets)
    listed = folder / "damaged.csv"
    write_csv(listed, DAMAGED_COLUMNS, list((known | damaged).items()))
    remarks = notes(seen, tracklets, least_height=least_height)
    write_csv(folder / "notes.csv", ("path", "note"), remarks)
    write_csv(folder / "duplicates.csv", ("path", "same_as", "problem"), copies)
    counts = histograms(seen, tracklets)
    write_csv(folder / "histograms.csv", [*counts.columns], counts.to_numpy().tolist())
    for part in list(parts.iterdir()):
        if _is_part(part.name):
            part.unlink()
    print(f"{len(seen)} frames seen, {len(damaged)} damaged: {listed}")
    if copies:
        print(f"{len(copies)} copies of other people's or test frames: {folder / 'duplicates.csv'}")
    if left_out := len(known.keys() - damaged.keys()):
        print(f"{left_out} frames that {options.damaged} leaves out stay in that list")
    if damaged:
        print(
            f"to leave them out: dataset.damaged: {listed}, within dataset.max_rejected_share "
            f"({options.max_rejected_share:g}), then `reid index`"
        )

"""The embedded benchmark: rendered people in the layout of DetReIDX, complete or absent."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from reid import files
from reid.config import Demo
from reid.errors import UserError
from reid.synthetic.camera import CAPTURE_POINTS, CapturePoint
from reid.synthetic.names import aerial_name, folders, ground_name
from reid.synthetic.own import MANIFEST, STAMP, holds_render
from reid.synthetic.people import Person, draw_person
from reid.synthetic.photo import jpeg
from reid.synthetic.scene import draw_take, film
from reid.synthetic.sheet import contact_sheet

__all__ = ["contact_sheet", "render"]

VERSION = 4
"""Raise it when the same settings render other files."""

_PERSON, _POINTS, _TAKE = 1, 2, 3
"""Streams of random numbers of this module; pre-training draws its people from another one."""


@dataclass(frozen=True)
class Shot:
    """One tracklet to render: who, when, from where (None: a ground camera)."""

    pid: int
    train: bool
    track: int
    session: int
    point: CapturePoint | None


def person_of(demo: Demo, pid: int) -> Person:
    """The person behind an identity (1-based)."""
    rng = np.random.default_rng((demo.seed, _PERSON, pid))
    return draw_person(rng, changed_share=demo.changed_share)


def shots_of(demo: Demo, pid: int) -> list[Shot]:
    """The tracklets of an identity; the first `train_identities` identities are for training.

    Ground tracklets alternate between the sessions; each session has its own capture points.
    """
    rng = np.random.default_rng((demo.seed, _POINTS, pid))
    train = pid <= demo.train_identities
    views: list[tuple[int, CapturePoint | None]] = []
    views += [
        (number * 2 // demo.ground_tracklets, None) for number in range(demo.ground_tracklets)
    ]
    for session in (0, 1):
        chosen = rng.permutation(len(CAPTURE_POINTS))[: demo.capture_points]
        views += [(session, CAPTURE_POINTS[i]) for i in sorted(chosen)]
    return [
        Shot(pid, train, track, session, point)
        for track, (session, point) in enumerate(views, start=1)
    ]


def render_identity(demo: Demo, root: Path, pid: int) -> int:
    """Render every tracklet of an identity below `root`. Returns the number of files."""
    person = person_of(demo, pid)
    written = 0
    for shot in shots_of(demo, pid):
        rng = np.random.default_rng((demo.seed, _TAKE, pid, shot.track))
        take = draw_take(rng, session=shot.session, point=shot.point)
        places = [
            root / folder / f"{pid:04d}" / f"{pid:04d}_{shot.track:04d}"
            for folder in folders(
                train=shot.train, session=shot.session, aerial=shot.point is not None
            )
        ]
        for place in places:
            place.mkdir(parents=True)
        for number, pixels in enumerate(film(person, shot.session, take, demo.frames, rng)):
            if shot.point is None:
                name = ground_name(pid, person, number)
            else:
                name = aerial_name(
                    pid, person, shot.session, shot.point, shot.track, take.ground, number
                )
            data = jpeg(pixels, take.exposure.quality)
            for place in places:
                (place / name).write_bytes(data)
            written += len(places)
    return written


def render(demo: Demo, root: Path, *, workers: int | None = None) -> None:
    """Render the benchmark at `root`, with `workers` processes (default: the usable cores).

    A render that is interrupted leaves `root` as it was, or, at its very end, absent; what it left
    beside `root` the next one removes. A complete render of the same settings is kept; one of other
    settings is replaced. Raises UserError when `root` holds anything that this function did not
    write.
    """
    settings = _settings(demo)
    found = _found(root)
    if found is not None and found["settings"] == settings:
        print(f"{root}: the benchmark is already there", flush=True)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{root.name}.rendering-"
    for left_over in root.parent.glob(f"{prefix}*"):  # of a render that was killed
        shutil.rmtree(left_over)
    partial_root = Path(tempfile.mkdtemp(dir=root.parent, prefix=prefix))
    try:
        written = _render_all(demo, partial_root, workers or len(os.sched_getaffinity(0)))
        files.write_json(partial_root / MANIFEST, {"settings": settings, "crops": written})
        partial_root.chmod(0o755)
        if found is not None:
            # Moved first: half deleted, it could not be told from somebody else's folder.
            old = root.rename(partial_root.with_name(f"{partial_root.name}.old"))
            partial_root.rename(root)
            shutil.rmtree(old)
        else:
            partial_root.rename(root)
    except BaseException:
        shutil.rmtree(partial_root, ignore_errors=True)
        raise
    print(f"{root}: {written} crops", flush=True)


def _render_all(demo: Demo, root: Path, workers: int) -> int:
    count = demo.train_identities + demo.test_identities
    job = partial(render_identity, demo, root)
    pids = range(1, count + 1)
    if workers == 1:
        return _progress(map(job, pids), count)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return _progress(pool.map(job, pids), count)


def _progress(written: Iterable[int], count: int) -> int:
    """The sum of `written`; prints a line for every eighth of `count`."""
    started, total = time.monotonic(), 0
    for done, crops in enumerate(written, start=1):
        total += crops
        if done * 8 // count > (done - 1) * 8 // count:
            spent = time.monotonic() - started
            print(
                f"rendered {done} of {count} people, {total / spent:.0f} crops/s, "
                f"{spent / done * (count - done):.0f} s left",
                flush=True,
            )
    return total


def _settings(demo: Demo) -> dict[str, Any]:
    keys = ("seed", "train_identities", "test_identities", "frames", "ground_tracklets",
            "capture_points", "changed_share")  # fmt: skip
    return {"version": VERSION, **demo.model_dump(mode="json", include=set(keys))}


def _found(root: Path) -> dict[str, Any] | None:
    """The manifest of an untouched benchmark at `root`; None when there is nothing."""
    if not holds_render(root):
        return None
    manifest = files.read_json(root / MANIFEST)
    if not isinstance(manifest, dict) or not {"settings", "crops"} <= manifest.keys():
        raise UserError(
            f"{root / MANIFEST} is damaged: delete {root} and run `reid demo-data` again"
        )
    names = [name for _, _, found in os.walk(root) for name in found]
    crops = sum(name.endswith(".jpg") for name in names)
    others = {name for name in names if not name.endswith(".jpg")} - {MANIFEST, STAMP}
    if crops != manifest["crops"] or others:
        what = f"also has {min(others)}" if others else f"has {crops} crops"
        raise UserError(
            f"{root} {what}, expected the {manifest['crops']} crops that `reid demo-data` "
            "wrote: delete the folder and run it again"
        )
    return manifest

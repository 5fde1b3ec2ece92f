"""The embedded benchmark: rendered people in the layout of DetReIDX, complete or absent."""

import os
import shutil
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reid import files
from reid.config import Demo
from reid.processes import worker_pool
from reid.synthetic.camera import CAPTURE_POINTS, CapturePoint
from reid.synthetic.marks import MANIFEST, claim_staging, digest, rendered_settings
from reid.synthetic.names import aerial_name, folders, ground_name
from reid.synthetic.people import Person, draw_person
from reid.synthetic.scene import draw_take, film
from reid.synthetic.sheet import contact_sheet

__all__ = ["contact_sheet", "render"]

VERSION = 6
"""Raise it when the same settings render other files."""

_PERSON, _POINTS, _TAKE = 1, 2, 3
"""Streams of random numbers of this module; pre-training draws its people from another one."""


def person_of(demo: Demo, pid: int) -> Person:
    """The person behind an identity (1-based)."""
    rng = np.random.default_rng((demo.seed, _PERSON, pid))
    return draw_person(rng, changed_share=demo.changed_share)


def views_of(demo: Demo, pid: int) -> list[tuple[int, CapturePoint | None]]:
    """Session and capture point (None: a ground camera) of each tracklet of an identity.

    Ground tracklets alternate between the sessions; each session has its own capture points.
    """
    rng = np.random.default_rng((demo.seed, _POINTS, pid))
    ground = demo.ground_tracklets
    views: list[tuple[int, CapturePoint | None]] = [(i * 2 // ground, None) for i in range(ground)]
    for session in (0, 1):
        chosen = rng.permutation(len(CAPTURE_POINTS))[: demo.capture_points]
        views += [(session, CAPTURE_POINTS[i]) for i in sorted(chosen)]
    return views


def render_identity(demo: Demo, root: Path, pid: int) -> dict[str, str]:
    """Render every tracklet of an identity below `root`.

    The first `train_identities` identities are for training. Returns the digest of each tracklet by
    its folder relative to `root`.
    """
    person, train = person_of(demo, pid), pid <= demo.train_identities
    digests = {}
    for track, (session, point) in enumerate(views_of(demo, pid), start=1):
        rng = np.random.default_rng((demo.seed, _TAKE, pid, track))
        take = draw_take(rng, session=session, point=point)
        places = [
            f"{folder}/{pid:04d}/{pid:04d}_{track:04d}"
            for folder in folders(train=train, session=session, aerial=point is not None)
        ]
        for place in places:
            (root / place).mkdir(parents=True)
        for number, pixels in enumerate(film(person, session, take, demo.frames, rng)):
            if point is None:
                name = ground_name(pid, person, number)
            else:
                name = aerial_name(pid, person, session, point, track, take.ground, number)
            for place in places:
                Image.fromarray(pixels).save(root / place / name, quality=take.quality)
        digests.update({place: digest(root / place) for place in places})
    return digests


def render(demo: Demo, root: Path, *, workers: int | None = None) -> None:
    """Render the benchmark at `root`, with `workers` processes (default: the usable cores).

    An interrupted render leaves `root` as it was or, at its very end, absent; the next one removes
    what was left beside `root`. A complete render of the same settings is kept, one of other
    settings is replaced. Where `root` is a link, this is about what the link points to. Raises
    UserError when `root` holds any file that this function did not write.
    """
    root, settings = root.resolve(), _settings(demo)
    rendered = rendered_settings(root)
    if rendered == settings:
        print(f"{root}: the benchmark is already there", flush=True)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (root.with_name(f".{root.name}.{what}") for what in ("rendering", "replaced"))
    for left_over in (staging, old):  # by a render that was killed
        if os.path.lexists(left_over):
            claim_staging(left_over)
            shutil.rmtree(left_over)
    claim_staging(staging)
    try:
        digests = _render_all(demo, staging, workers or len(os.sched_getaffinity(0)))
        files.write_json(staging / MANIFEST, {"settings": settings, "tracklets": digests})
        if rendered is not None:
            rendered_settings(root)  # rendering takes minutes: look once more before deleting
            root.rename(old)
        staging.rename(root)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if rendered is not None:
        shutil.rmtree(old)
    print(f"{root}: {len(digests)} tracklets of {demo.frames} crops", flush=True)


def _render_all(demo: Demo, root: Path, workers: int) -> dict[str, str]:
    count = demo.train_identities + demo.test_identities
    job = partial(render_identity, demo, root)
    pids = range(1, count + 1)
    if workers == 1:
        return _gather(map(job, pids), count)
    with worker_pool(workers) as pool:
        return _gather(pool.map(job, pids), count)


def _gather(people: Iterable[dict[str, str]], count: int) -> dict[str, str]:
    """All digests of `count` people; prints a line for every eighth of them."""
    started = time.monotonic()
    digests: dict[str, str] = {}
    for done, tracklets in enumerate(people, start=1):
        digests |= tracklets
        if done * 8 // count > (done - 1) * 8 // count:
            left = (time.monotonic() - started) / done * (count - done)
            print(f"rendered {done} of {count} people, {left:.0f} s left", flush=True)
    return digests


def _settings(demo: Demo) -> dict[str, Any]:
    keys = ("seed", "train_identities", "test_identities", "frames", "ground_tracklets",
            "capture_points", "changed_share")  # fmt: skip
    return {"version": VERSION, **demo.model_dump(mode="json", include=set(keys))}

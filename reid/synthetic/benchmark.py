"""The embedded benchmark: rendered people in the layout of DetReIDX, complete or absent."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from reid import files
from reid.claim import MARK
from reid.config import Demo
from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.errors import UserError
from reid.processes import worker_pool
from reid.progress import Progress
from reid.synthetic.marks import KIND, claim_staging, digest, rendered_settings
from reid.synthetic.people import Person, draw_person
from reid.synthetic.scene import CAPTURE_POINTS, CapturePoint, draw_take, film

VERSION = 7
"""Raise it when the same settings render other files."""

_PERSON, _POINTS, _TAKE = 1, 2, 3
"""Streams of random numbers of this module; pre-training draws its people from another one."""

CELL, ROWS = (96, 168), 12
"""Of the contact sheet: width and height of a cell in pixels, number of people."""


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


def folders_of(*, train: bool, session: int, aerial: bool) -> list[str]:
    """Where a tracklet lies, relative to the root: one folder, or a side of each protocol."""
    if train:
        return ["train"]
    sides = {"A2G": ("gallery", "query")[aerial], "G2A": ("query", "gallery")[aerial]}
    if aerial:
        sides["A2A"] = ("query", "gallery")[session]
    return [f"{PROTOCOL_FOLDERS[protocol]}/{side}" for protocol, side in sides.items()]


def stem_of(pid: int, track: int, session: int, point: CapturePoint | None) -> str:
    """The name of a tracklet's frames up to the number; attributes are not annotated (-1).

    `session` counts from 0; half of the tracklets spell it `S1`, the other half `1`.
    """
    if point is None:
        return f"{pid:04d}{5 * '_-1'}"
    time = ("23_10_2024_09", "06_11_2024_15")[session] + f"_{track % 60:02d}"
    place = f"{point.height:g}_{point.distance:g}_{point.angle:g}_1"
    spelled = f"{'S' * (track % 2)}{session + 1}"
    return f"{pid:04d}_{time}_{place}{12 * '_-1'}_{spelled}"


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
            for folder in folders_of(train=train, session=session, aerial=point is not None)
        ]
        for place in places:
            (root / place).mkdir(parents=True)
        for number, pixels in enumerate(film(person, session, take, demo.frames, rng)):
            name = f"{stem_of(pid, track, session, point)}_{number:05d}.jpg"
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
    root = root.resolve()
    sizes = demo.model_dump(mode="json", exclude={"captions", "clip_epochs"})
    settings: dict[str, Any] = {"version": VERSION, **sizes}
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
        mark = {"kind": KIND, "of": "", "settings": settings, "tracklets": digests}
        files.write_json(staging / MARK, mark)
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
    pids = range(1, demo.train_identities + demo.test_identities + 1)
    job, progress = partial(render_identity, demo, root), Progress("render", len(pids), "people")
    digests: dict[str, str] = {}
    with worker_pool(workers) as pool:  # starts its processes when it gets work
        for tracklets in map(job, pids) if workers == 1 else pool.map(job, pids):
            digests |= tracklets
            progress.advance()
    return digests


def contact_sheet(root: Path, png: Path) -> None:
    """Draw the first crop of every tracklet of some people of training, then of the test.

    Crops are enlarged to equal height or width, however small. Raises UserError when `root`
    holds no rendered benchmark.
    """
    train = sorted((root / "train").glob("*"))[: ROWS // 2]
    test = sorted((root / PROTOCOL_FOLDERS["A2G"]).glob("query/*"))[: ROWS - len(train)]
    people = [sorted(person.iterdir()) for person in train]
    people += [sorted(person.parents[1].glob(f"*/{person.name}/*")) for person in test]
    if not people:
        raise UserError(f"{root} holds no benchmark: run `reid demo-data` first")
    columns = max(map(len, people))
    sheet = Image.new("RGB", (columns * CELL[0], len(people) * CELL[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, tracklets in enumerate(people):
        for column, tracklet in enumerate(sorted(tracklets, key=lambda path: path.name)):
            x, y, first = column * CELL[0], row * CELL[1], min(tracklet.iterdir())
            fields = first.name.split("_")
            view = "ground" if len(fields) == 7 else f"{fields[6]} m up, {fields[7]} m"
            with Image.open(first) as crop:
                fitted = ImageOps.contain(
                    crop, (CELL[0] - 4, CELL[1] - 32), Image.Resampling.LANCZOS
                )
                sheet.paste(fitted, (x, y))
                label = f"{crop.width} x {crop.height} px\n{view}"
            pen.multiline_text((x, y + CELL[1] - 30), label, fill="black", font=font)
    with files.replacing(png) as temporary:
        sheet.save(temporary, "PNG")

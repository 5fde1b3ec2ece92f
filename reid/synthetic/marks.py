"""Marks of what `reid demo-data` and `reid demo-weights` wrote: nothing else is ever replaced."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from reid.claim import claim, read_mark
from reid.errors import UserError

KIND = "demo data"
MANIFEST = ".xfd-reid.manifest.json"
"""In a rendered folder, for Snakemake, which deletes outputs before it runs a rule again: the mark
must stay."""
WEIGHTS_MARK = {"made_by": "reid demo-weights"}
"""Metadata of the safetensors file of a tiny CLIP."""

_CROP = re.compile(r"(train|case\d_\w+/(query|gallery))/\d{4,}/\d{4,}_\d{4,}/[^/]+\.jpg")


def holds_render(root: Path) -> bool:
    """Whether a rendered benchmark is at `root`; False where there is nothing.

    Reads no frames. Raises UserError when `root` is anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if read_mark(root).get("kind") != KIND:
        raise UserError(
            f"{root} holds something that `reid demo-data` did not make: set dataset.root to a new "
            "folder, or leave the `demo` section out to use the data that is there"
        )
    return True


def rendered_settings(root: Path) -> dict[str, Any] | None:
    """The settings of the benchmark at `root`, None where there is nothing.

    Raises UserError unless every file below `root` is as `reid demo-data` wrote it.
    """
    if not holds_render(root):
        return None
    mark = read_mark(root)
    tracklets = mark.get("tracklets", {})
    if not tracklets:
        raise UserError(f"{root} is of an earlier version: delete it and run this again")
    claim(
        root, kind=KIND, ours=lambda name: name == MANIFEST or name.rpartition("/")[0] in tracklets
    )
    for name, written in tracklets.items():
        if not (root / name).is_dir() or digest(root / name) != written:
            raise UserError(
                f"{root / name} is not as `reid demo-data` wrote it: move what is yours out of "
                f"{root}, delete {root} and run this again"
            )
    return dict(mark["settings"])


def claim_staging(folder: Path) -> None:
    """Mark `folder` as an unfinished render, or check that it holds nothing else."""
    claim(folder, kind=KIND, ours=lambda name: bool(_CROP.match(name)))


def digest(tracklet: Path) -> str:
    """Digest of the names and contents of all files of a tracklet's folder."""
    whole = hashlib.sha256()
    for path in sorted(tracklet.iterdir()):
        for part in (os.fsencode(path.name), path.read_bytes() if path.is_file() else b""):
            whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:32]


def demand_tiny_clip(file: Path) -> None:
    """Raise UserError when `file` exists and is not a tiny CLIP of `reid demo-weights`."""
    if not os.path.lexists(file):
        return
    try:
        if file.is_file():
            with safe_open(file, framework="numpy") as weights:
                if (weights.metadata() or {}).items() >= WEIGHTS_MARK.items():
                    return
    except SafetensorError:
        pass  # another format, or damaged: not ours either way
    raise UserError(
        f"{file} was not made by `reid demo-weights`, which would overwrite it: move it away, set "
        "backbones.*.weights to a new file, or leave the `demo` section out"
    )

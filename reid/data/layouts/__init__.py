"""The conventions of folders and file names that `dataset.layout` chooses among.

How each is laid out, what it was written from, and how to add one: docs/DATA.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reid.data import layout
from reid.data.layout import PROTOCOL_FOLDERS, Scene
from reid.data.layouts import agvpreid
from reid.data.layouts.folders import plan_folders
from reid.data.layouts.manifest import plan_manifest
from reid.data.layouts.mars import plan_mars
from reid.data.layouts.tree import Grammar, Part, parts_of, plan_tree
from reid.data.names import Run
from reid.data.scan import Look, Plan
from reid.data.stored import count_cameras, demand_folder
from reid.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A convention of folders and file names."""

    protocols: Sequence[str]
    """Those that it can serve."""
    cameras: tuple[str, ...] | None
    """What camera 0, 1, ... is; None: numbered in the data."""
    plan: Callable[[Look, Sequence[str], Path | None], Plan]
    """What to scan, given protocols and `dataset.manifest`."""
    swapped: Sequence[str] = ()
    """Protocols in which the dataset's queries are the gallery, and its gallery the queries."""


def _cases(look: Look, protocols: Sequence[str], _: Path | None, *, grammar: Grammar) -> Plan:
    """`train/` and a folder per protocol."""
    demand_folder(look.root / "train", "expected the training identities: is dataset.root right?")
    parts = [Part("train", "train", "train")]
    for protocol in protocols:
        parts += parts_of(PROTOCOL_FOLDERS[protocol], protocol)
    for part in parts[1:]:
        demand_folder(
            look.root / part.folder,
            f"expected for protocol {part.split}: add it or leave {part.split} out of "
            "dataset.protocols",
        )
    return plan_tree(look, parts, grammar)


def _detreidx(_: str, run: Run, identity: int) -> Scene:
    return layout.parse_scene(run, identity)


LAYOUTS = {
    "detreidx": Layout(tuple(PROTOCOL_FOLDERS), layout.CAMERAS, partial(_cases, grammar=_detreidx)),
    "ag-vpreid": Layout(("A2G", "G2A"), agvpreid.CAMERAS, partial(_cases, grammar=agvpreid.scene)),
    "mars": Layout(
        ("G2G", "ALL"),
        tuple(f"camera{number}" for number in range(1, 7)),
        lambda look, _, __: plan_mars(look, ["ground"] * 6),
    ),
    "g2a-vreid": Layout(
        ("G2A", "A2G"),
        ("ground", "aerial"),
        lambda look, _, __: plan_mars(look, ["ground", "aerial"]),
        swapped=("A2G",),
    ),
    "manifest": Layout(
        ("A2G", "G2A", "A2A", "G2G", "ALL"),
        None,
        lambda look, _, manifest: plan_manifest(look, manifest),
    ),
    "folders": Layout(("ALL",), None, lambda look, _, __: plan_folders(look)),
}


def cameras_of(name: str, index: Path) -> int:
    """Cameras of a dataset in the layout `name`; `index` is one of its splits, maybe not there.

    Raises UserError when only the index could tell.
    """
    known = LAYOUTS[name].cameras
    if index.exists():
        return count_cameras(index)
    if known is None:
        raise UserError(f"{index} does not exist: run `reid index` (layout {name} needs it)")
    return len(known)

"""The user's own data without a list: a folder per person, in it a folder per tracklet.

train/PERSON/cN[_ANYTHING]/*.jpg       N: the camera, a number from 0
query/PERSON/cN[_ANYTHING]/*.jpg
gallery/PERSON/cN[_ANYTHING]/*.jpg
"""

import hashlib
import re

from reid.data.layout import GrammarError, Scene, demand_jpeg
from reid.data.layouts.identities import number_identities
from reid.data.layouts.tree import Part, parts_of, plan_tree
from reid.data.names import Run
from reid.data.scan import Look, Plan, entries, is_ignored
from reid.data.stored import demand_folder

_CAMERA = re.compile(r"c(\d{1,3})(?:_.*)?", re.ASCII | re.DOTALL)
LARGEST_CAMERA = 126


def plan_folders(look: Look) -> Plan:
    """Raises UserError when train/, query/ or gallery/ is missing."""
    parts = [Part("train", "train", "train"), *parts_of("", "test")]
    for part in parts:
        demand_folder(look.root / part.folder, "layout folders needs train/, query/ and gallery/")
    names = [
        entry.name
        for part in parts
        for entry in entries(look.root / part.folder)
        if entry.is_dir() and not is_ignored(entry.name)
    ]
    plan = plan_tree(look, parts, scene, number_identities(names))
    stamp = hashlib.sha256("\0".join(sorted(set(names))).encode("utf-8", "backslashreplace"))
    return Plan(plan.units, plan.rejected, stamp.hexdigest())


def scene(tracklet: str, run: Run, identity: int) -> Scene:
    """Camera, from the name of the tracklet's folder. Raises GrammarError."""
    del identity
    demand_jpeg(run)
    match = _CAMERA.fullmatch(tracklet)
    if match is None or int(match[1]) > LARGEST_CAMERA:
        raise GrammarError(f"tracklet folder is not cN or cN_..., N from 0 to {LARGEST_CAMERA}")
    return Scene(None, int(match[1]))

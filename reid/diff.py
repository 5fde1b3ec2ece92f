"""What differs between two runs, from their manifests alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid import provenance
from reid.chain import changes, difference
from reid.errors import UserError
from reid.provenance import Manifest

SUFFIX = ".manifest.json"


def compare(first: Path, second: Path) -> Iterator[str]:
    """Lines for people: options, code and inputs of each pair of manifests; then what ran them.

    first, second: artifacts, their manifests, or folders, whose manifests are paired by their path
    below them. Raises UserError where there is none, and naming one that is damaged.
    """
    one, other = manifests_of(first), manifests_of(second)
    if len(one) == len(other) == 1:  # two artifacts may have different names
        other = dict(zip(one, other.values(), strict=True))
    same = 0
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            yield f"{name}: only in {first if name in one else second}"
            continue
        lines = list(_lines(one[name], other[name]))
        same += not lines
        if lines:
            yield f"{name}:"
            yield from (f"  {line}" for line in lines)
    yield f"{same} of {len(one.keys() | other.keys())} are equal in options, code and inputs"


def manifests_of(path: Path) -> dict[str, Manifest]:
    """The manifests of an artifact, or below a folder, by their place."""
    if path.is_dir():
        paths = sorted(path.rglob(f"*{SUFFIX}"))
    elif path.name.endswith(SUFFIX):
        paths = [path]
    else:
        paths = [path.with_name(path.stem + SUFFIX)]
    found = [file for file in paths if file.exists()]
    if not found:
        raise UserError(f"{path}: no manifest there: expected an artifact, or a folder of results")
    names = [str(file.relative_to(path) if path.is_dir() else file.name) for file in found]
    manifests = map(provenance.read_whole, found)
    return dict(zip((name.removesuffix(SUFFIX) for name in names), manifests, strict=True))


def _lines(one: Manifest, other: Manifest) -> Iterator[str]:
    stamp = difference(one.stamp, other.stamp)
    if stamp is None and one.outputs == other.outputs:
        return
    yield from stamp.split("; ") if stamp else ["the same options, code and inputs"]
    if one.outputs != other.outputs:
        yield "outputs differ"
    yield from (f"made: {line}" for line in changes(_maker(one.made), _maker(other.made)))


def _maker(made: Mapping[str, Any]) -> dict[str, Any]:
    """What may change a result, but for times and paths."""
    git = made.get("git") or {}
    keys = ("host", "device", "gpu", "precision", "threads", "python", "packages", "cuda", "cudnn")
    return {key: made.get(key) for key in keys} | {
        "commit": git.get("sha"),
        "dirty": git.get("dirty"),
    }

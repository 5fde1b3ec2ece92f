"""Manifests: what made the outputs of a job, beside them as JSON, so that a number has a history.

`<first output>.manifest.json` holds

    stamp     options, code and digests of the inputs, by content (reid.chain)
    outputs   SHA-256 and size of each output, by name
    made      when, where and by what: command, commit, versions, host, Slurm job, device, threads
"""

import hashlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from reid.errors import UserError
from reid.files import read_json, sha256_of_file, write_json

SOURCE = Path(__file__).resolve().parents[1]
PACKAGES = ("xfd-reid", "torch", "torchvision", "open_clip_torch", "numpy", "numba", "scipy",
            "pyarrow", "pillow", "safetensors", "snakemake")  # fmt: skip
SLURM = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "CLUSTER_NAME", "JOB_NODELIST")
LONGEST_DIFF = 1 << 16
"""Characters of a diff that are kept; of a longer one only its digest."""


class _Stamp(TypedDict):
    step: str
    options: dict[str, Any]
    code: dict[str, str]
    inputs: dict[str, str]


class _Output(TypedDict):
    sha256: str
    bytes: int


class _Git(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    sha: str
    dirty: list[str]


class _Made(TypedDict):
    """What is read of it; it holds more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    finished: str
    host: str
    device: str
    gpu: str | None
    precision: str | None
    git: _Git | None
    inputs: dict[str, str]


class _Content(TypedDict):
    stamp: _Stamp
    outputs: dict[str, _Output]
    made: _Made


_CONTENT = TypeAdapter(_Content)
STAMP = TypeAdapter(_Stamp)


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read."""

    stamp: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Any]


def read(path: Path) -> Manifest | None:
    """Read a manifest; None where there is none, or none that this version can read."""
    try:
        return read_whole(path)
    except UserError:
        return None


def read_whole(path: Path) -> Manifest:
    """Read a manifest. Raises UserError when it is missing, damaged or of another version."""
    return Manifest(**read_json(path, _CONTENT))


def write(
    path: Path, *, stamp: Mapping[str, Any], outputs: Sequence[Path], made: Mapping[str, Any]
) -> None:
    """Write the manifest of outputs that are there, atomically. `made`: see `facts`.

    One that already says so of the same bytes stays: its `made` is what made them first.
    """
    described = {
        output.name: {"sha256": sha256_of_file(output), "bytes": output.stat().st_size}
        for output in outputs
    }
    before = read(path)
    if before and (before.stamp, before.outputs) == (stamp, described):
        return
    finished = datetime.now(UTC)
    seconds = (finished - datetime.fromisoformat(made["started"])).total_seconds()
    times = {"finished": finished.isoformat(timespec="seconds"), "wall_seconds": round(seconds, 3)}
    write_json(path, {"stamp": stamp, "outputs": described, "made": {**made, **times}})


def facts(device: str = "cpu", precision: str | None = None) -> dict[str, Any]:
    """What runs this process, to be taken at the start of a job, JSON-able.

    device: a torch device (`cpu`, `cuda:0`); precision: of forward passes, None without any. What
    this machine does not have (git, a GPU, a Slurm job) is null.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": git_state(SOURCE),
        "slurm": slurm_job(os.environ),
        "host": socket.gethostname(),
        "device": device,
        "precision": precision,
        **_machine(device),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def git_state(source: Path) -> dict[str, Any] | None:
    """Commit of the checkout at `source` and what is changed in it; None if it is not one."""
    top = _git(source, "rev-parse", "--show-toplevel")
    commit = _git(source, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != source.resolve():
        return None
    names = (_git(source, "status", "--porcelain") or "").splitlines()
    state: dict[str, Any] = {"sha": commit, "dirty": [name[3:] for name in names]}
    if names:
        diff = _git(source, "diff", "HEAD") or ""
        state["diff_sha256"] = hashlib.sha256(diff.encode()).hexdigest()
        state["diff"] = diff if len(diff) <= LONGEST_DIFF else None
    return state


def slurm_job(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The Slurm job of this process by its variables (`JOB_ID`, ...); None outside of one."""
    names = {key.lower(): f"SLURM_{key}" for key in SLURM}
    job = {key: environment[name] for key, name in names.items() if name in environment}
    return job or None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace").rstrip("\n")  # a diff may be of any bytes


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine(device: str) -> dict[str, Any]:
    """Threads, and of a GPU its name and the versions under it."""
    if "torch" not in sys.modules:  # steps without a network do not wait for its import
        return {"threads": len(os.sched_getaffinity(0)), "gpu": None}
    import torch

    machine: dict[str, Any] = {"threads": torch.get_num_threads(), "gpu": None}
    if device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = torch.version.cuda
        machine["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        machine["driver"] = _driver()
    return machine


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.split("\n")[0].strip() or None

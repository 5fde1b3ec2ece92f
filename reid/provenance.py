"""Provenance of an artifact, so that a number in the table can be traced to its run."""

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reid.files import sha256_of_file, write_json

SOURCE = Path(__file__).resolve().parents[1]
PACKAGES = ("xfd-reid", "torch", "torchvision", "numpy", "pillow", "safetensors", "snakemake")
SLURM = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "CLUSTER_NAME", "JOB_NODELIST")


def write(
    path: Path,
    *,
    stage: str,
    seed: int,
    fingerprint: str,
    options: Mapping[str, Any],
    device: str,
    precision: str | None,
    started: datetime,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
) -> None:
    """Write the manifest of a finished run as JSON, atomically.

    `options` is what the run was configured with (JSON-able), `started` an aware time, `device`
    a torch device (`cpu`, `cuda:0`), `precision` that of the forward passes, None without any.
    Inputs and outputs are files that exist; they are listed with their SHA-256. What this
    machine does not have (git, a GPU, a Slurm job) is null.
    """
    finished = datetime.now(UTC)
    write_json(
        path,
        {
            "stage": stage,
            "seed": seed,
            "fingerprint": fingerprint,
            "options": options,
            "command": sys.argv,
            "started": started.isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
            "wall_seconds": round((finished - started).total_seconds(), 3),
            "git": git_state(SOURCE),
            "slurm": slurm_job(os.environ),
            "host": socket.gethostname(),
            "device": device,
            "gpu": _gpu_name(device),
            "precision": precision,
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES},
            "inputs": _hashed(inputs),
            "outputs": _hashed(outputs),
        },
    )


def git_state(source: Path) -> dict[str, Any] | None:
    """Commit of the checkout at `source` and whether it has changes; None if it is not one."""
    top = _git(source, "rev-parse", "--show-toplevel")
    sha = _git(source, "rev-parse", "HEAD")
    if top is None or sha is None or Path(top).resolve() != source.resolve():
        return None
    changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    return {"sha": sha, "dirty": bool(changes)}


def slurm_job(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The Slurm job of this process by its variables (`JOB_ID`, ...); None outside of one."""
    names = {key.lower(): f"SLURM_{key}" for key in SLURM}
    found = {key: environment[name] for key, name in names.items() if name in environment}
    return found or None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _gpu_name(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)


def _hashed(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    return {
        name: {"path": path.as_posix(), "sha256": sha256_of_file(path)}
        for name, path in files.items()
    }

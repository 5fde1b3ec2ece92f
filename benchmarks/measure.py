"""What the retrieval benchmarks share: inputs, clocks, peak memory, public peers from a folder."""

import ctypes
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info


@dataclass(frozen=True)
class Cost:
    """Seconds by the wall clock and of all threads' CPU time, and MiB over what was held before."""

    wall: float
    cpu: float
    mib: float


def cost(call: Callable[[], Any]) -> Cost:
    """Run once and measure. The peak is that of resident memory (Linux, glibc)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that is kept would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    held = _resident("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _resident("VmHWM") - held
    del result
    return Cost(wall, cpu, peak)


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = True
) -> dict[str, list[Cost]]:
    """Costs of every call by round: the calls take turns, so that all see the same machine."""
    if warm:
        for call in calls.values():
            call()
    found: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(cost(call))
    return found


def ratio(found: dict[str, list[Cost]], name: str, base: str, clock: str) -> float:
    """Median over rounds of name / base by `wall` or `cpu`."""
    pairs = zip(found[name], found[base], strict=True)
    return statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs)


def typical(costs: list[Cost]) -> Cost:
    """Median of each measure."""
    return Cost(
        statistics.median(c.wall for c in costs),
        statistics.median(c.cpu for c in costs),
        statistics.median(c.mib for c in costs),
    )


def identities_and_features(
    size: int, dimensions: int = 1280, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) identities of 20 tracklets each and (N, D) float32 features, noisy around a center."""
    rng = np.random.default_rng(seed)
    count = max(1, size // 20)
    identities = rng.permutation(np.arange(size) % count)
    centers = rng.standard_normal((count, dimensions), dtype=np.float32)
    features = rng.standard_normal((size, dimensions), dtype=np.float32)
    for start in range(0, size, 4096):  # no second copy of everything
        features[start : start + 4096] += 0.28 * centers[identities[start : start + 4096]]
    return identities, features


def peer(folder: Path | None, path: str) -> ModuleType | None:
    """A module of a public repository checked out under `folder`, or None when it is not there."""
    if folder is None or not (folder / path).exists():
        return None
    name = "peer_" + Path(path).stem
    if path.endswith(".so"):
        name = Path(path).name.split(".")[0]
    spec = importlib.util.spec_from_file_location(name, folder / path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(folder / Path(path).parts[0]))  # they import each other from there
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe_machine() -> str:
    """One line: processor, cores, load, versions, kernels of the matrix product."""

    model = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    libraries = (library for library in threadpool_info() if library["user_api"] == "blas")
    kernels = next((library["architecture"] for library in libraries), "unknown")
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at start; "
        f"Python {platform.python_version()}, NumPy {np.__version__} (OpenBLAS {kernels}), "
        f"torch {torch.__version__}; "
        f"command: {' '.join(['python', *sys.argv])}"
    )


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")

"""The harness of the benchmarks: calls take turns, figures and ratios are medians over the rounds.

CPU time counts all threads and finished child processes. Ratios are those within a round.
"""

import argparse
import ctypes
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info

Call = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Of one call: seconds of wall and CPU time, peak MiB above what was held before.

    On a GPU the peak is of all its allocated memory.
    """

    wall: float
    cpu: float
    mib: float


def cost(call: Call, device: str = "cpu", *, trim: bool = False) -> Cost:
    """Run once and measure. The peak is that of resident memory (Linux, glibc), or of the GPU.

    Memory that is freed but not given back hides from the peak, unless it is trimmed before.
    """
    if trim:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    held = _resident("VmRSS")
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    peak = _resident("VmHWM") - held
    del result
    return Cost(wall, cpu, torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak)


def cpu_seconds() -> float:
    """CPU time so far of this process and its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def compare(
    title: str,
    calls: Mapping[str, Call],
    rounds: int,
    *,
    count: int | Mapping[str, int] = 1,
    limit: float | None = None,
    device: str = "cpu",
    warm: bool = True,
    trim: bool = False,
) -> None:
    """Run the calls in turn and print a Markdown table; the last column is over the first call.

    count: items of a call, for items per second of CPU (on a GPU: wall) time. limit: the most
    items per second that the machine could do.
    """
    if warm:
        for call in calls.values():
            call()
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            costs[name].append(cost(call, device, trim=trim))
    clock = "cpu" if device == "cpu" else "wall"
    base = [getattr(measured, clock) for measured in next(iter(costs.values()))]
    print(f"\n| {title} | wall s | CPU s | peak MiB | items/s | of limit | {clock}, over first |")
    print("| --- |" + " ---: |" * 6)
    for name, measured in costs.items():
        typical = Cost(*map(statistics.median, zip(*map(astuple, measured), strict=True)))
        rate = (count if isinstance(count, int) else count[name]) / getattr(typical, clock)
        pairs = zip(measured, base, strict=True)
        ratio = statistics.median(getattr(one, clock) / first for one, first in pairs)
        share = f"{rate / limit:.0%}" if limit else ""
        times = f"{typical.wall:.4g} | {typical.cpu:.4g} | {typical.mib:.0f}"
        print(f"| {name} | {times} | {rate:,.4g} | {share} | {ratio:.2f} x |", flush=True)


def command_line(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with --rounds; prints one line about the machine and the command."""
    model = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    kernels = [lib["architecture"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    print(
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at start; "
        f"Python {platform.python_version()}, NumPy {np.__version__} (OpenBLAS {kernels}), "
        f"torch {torch.__version__} ({torch.get_num_threads()} threads); "
        f"command: {' '.join(['python', *sys.argv])}"
    )
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser

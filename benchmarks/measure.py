"""The harness of the benchmarks: calls take turns, figures and ratios are medians over the rounds.

CPU time counts all threads and finished child processes. Ratios are those within a round.
"""

import argparse
import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_info

Call = Callable[[], object]


class Cost(NamedTuple):
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
    """Run the calls in turn and print a table; the last column is over the first call.

    count: items of a call, for items per second of CPU (on a GPU: wall) time. limit: the most
    items per second that the machine could do.
    """
    for call in calls.values() if warm else ():
        call()
    clock = "cpu" if device == "cpu" else "wall"
    costs = pd.DataFrame(
        {"round": turn, "call": name, **cost(call, device, trim=trim)._asdict()}
        for turn in range(rounds)
        for name, call in calls.items()
    )
    table = costs.groupby("call", sort=False)[list(Cost._fields)].median()
    items = pd.Series(count if isinstance(count, Mapping) else dict.fromkeys(calls, count))
    table["items/s"] = items / table[clock]
    if limit:
        table["of limit"] = table["items/s"] / limit
    times = costs.pivot(index="round", columns="call", values=clock)
    table[f"{clock}, over first"] = times.div(times[next(iter(calls))], axis="index").median()
    print(f"\n{title}\n{table.to_string(float_format='{:,.4g}'.format)}", flush=True)


def command_line(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with --rounds; prints one line about the machine and the command."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(": ")[1] for line in processors if line.startswith("model name"))
    kernels = [lib["architecture"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    print(
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at start; "
        f"NumPy {np.__version__} (OpenBLAS {kernels}), torch {torch.__version__} "
        f"({torch.get_num_threads()} threads); command: {' '.join(['python', *sys.argv])}"
    )
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser

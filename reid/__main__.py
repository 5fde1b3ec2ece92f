"""`python -m reid`: the `reid` command, with as many threads as its job of Slurm has CPUs.

Snakemake sets the number of threads by the cores of the machine that it runs on itself, which may
be a log-in node. Libraries read it when they are imported.
"""

import os
import sys

if cpus := int(os.environ.get("SLURM_CPUS_PER_TASK", 0)):
    threads = max(1, cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)

from reid.errors import of_memory

try:
    from reid.cli import main
except (MemoryError, ImportError) as error:
    if (lack := of_memory(error)) is None:
        raise
    sys.exit(f"error: {lack}")

if __name__ == "__main__":
    sys.exit(main())

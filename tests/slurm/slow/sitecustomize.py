"""On PYTHONPATH: a step of stage 2 of `baseline` takes STEP_SECONDS longer; steps.txt lists them.

Sleeping makes a training long enough to be disturbed without keeping a core busy; the lines show
what was really computed, by whom, and how often. From its start number FAST_FROM on, a training
does not sleep any more. While there is a file `hold`, a step does not end.

Snakemake asks Slurm every two seconds, where its executor takes ever longer pauses.
"""

import os
import sys

started = [part for part in sys.orig_argv[1:] if part != "-u"]  # which torchrun adds
if started[:4] == ["-m", "reid", "train", "stage2"] and "baseline" in started:
    import time
    from pathlib import Path

    import torch

    step = torch.optim.Adam.step
    seconds = float(os.environ["STEP_SECONDS"])
    me = f"{os.environ.get('SLURM_JOB_ID')} {os.getpid()}\n"
    done = Path("steps.txt")
    starts = set(done.read_text().splitlines()) if done.exists() else set()
    if len(starts) + 1 >= int(os.environ.get("FAST_FROM", "1000")):
        seconds = 0.0

    def slow_step(*arguments, **options):
        """A step, noted, and a pause."""
        result = step(*arguments, **options)
        with done.open("a") as lines:
            lines.write(me)
        time.sleep(seconds)
        while Path("hold").exists():
            time.sleep(0.1)
        return result

    torch.optim.Adam.step = slow_step

if sys.orig_argv[1:3] == ["-m", "snakemake"]:
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self):
        """Not longer than a test has time for."""
        await asyncio.sleep(2)

    RemoteExecutor.sleep = sleep

"""On PYTHONPATH: every step of a stage 2 takes STEP_SECONDS longer and leaves a line in steps.txt.

Sleeping makes a training long enough to be disturbed without keeping a core busy; the lines show
what was really computed, by whom, and how often.
"""

import os
import sys

if sys.orig_argv[1:5] == ["-m", "reid", "train", "stage2"]:
    import time

    import torch

    step = torch.optim.Adam.step

    def slow_step(*arguments, **options):
        result = step(*arguments, **options)
        with open("steps.txt", "a") as lines:
            lines.write(f"{os.environ.get('SLURM_JOB_ID')} {os.getpid()}\n")
        time.sleep(float(os.environ["STEP_SECONDS"]))
        return result

    torch.optim.Adam.step = slow_step

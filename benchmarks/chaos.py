"""Kill one training again and again at random instants; it must end bit-equal to one left alone.

    python -m benchmarks.chaos --kills 50 --seed 0

Runs stage 2 on a tiny generated dataset: real processes, SIGKILL to the trainer or to its whole
process group, real files. Prints how many kills hit which part of a run, and exits with 1 if a
single bit differs.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.runs import STAGE1, STAGE2, kill_after, make_lab, remains


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder))
        lab.configure(workers=options.workers, checkpoint_minutes=1e-4)
        assert lab.finish(*STAGE1) == 0, lab.log()
        began = time.monotonic()
        assert lab.finish(*STAGE2) == 0, lab.log()
        alone = time.monotonic() - began
        expected = remains(lab.run)
        rng = random.Random(options.seed)
        kills, rounds, restarts = 0, 0, 0
        where: Counter[str] = Counter()
        began = time.monotonic()
        while kills < options.kills:
            shutil.rmtree(lab.run / "checkpoints" / "stage2")
            (lab.run / "stage2.safetensors").unlink(missing_ok=True)
            (lab.run / "stage2.jsonl").unlink()
            rounds += 1
            while True:
                limit = rng.uniform(0, alone) if kills < options.kills else 1e9
                code = kill_after(lab.start(*STAGE2), limit, group=rng.random() < 0.5)
                restarts += 1
                if code == 0:
                    break
                if code != -signal.SIGKILL:
                    print(lab.log())
                    return 1
                kills += 1
                where[state(lab.run / "checkpoints" / "stage2")] += 1
            if remains(lab.run) != expected:
                print(f"round {rounds}: the result differs after {kills} kills")
                return 1
        took = time.monotonic() - began
    print(f"{kills} kills in {rounds} runs ({restarts} starts, {took:.0f} s; one run undisturbed")
    print(f"takes {alone:.1f} s): weights, optimizer, metrics bit-equal every time.")
    for moment, count in sorted(where.items()):
        print(f"  killed {moment}: {count}")
    return 0


def state(folder: Path) -> str:
    """What a killed process left of its checkpoints."""
    if not folder.exists() or not any(folder.iterdir()):
        return "before the first checkpoint"
    written = any(path.suffix == ".tmp" for path in folder.iterdir())
    return "while a checkpoint was written" if written else "between checkpoints"


if __name__ == "__main__":
    sys.exit(main())

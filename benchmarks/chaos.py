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

from tests.runs import STAGE1, STAGE2, Lab, kill_after, make_lab, remains


def round_of_kills(lab: Lab, rng: random.Random, longest: float, kills: int) -> Counter[str]:
    """Train from stage 1 to the end of stage 2 through at most `kills` kills: where they hit."""
    checkpoints = lab.run / "checkpoints" / "stage2"
    shutil.rmtree(checkpoints)
    (lab.run / "stage2.safetensors").unlink(missing_ok=True)
    (lab.run / "stage2.jsonl").unlink()
    where: Counter[str] = Counter()
    while True:
        limit = rng.uniform(0, longest) if where.total() < kills else 1e9
        code = kill_after(lab.start(*STAGE2), limit, group=rng.random() < 0.5)
        if code == 0:
            return where
        assert code == -signal.SIGKILL, lab.log()
        names = [path.suffix for path in checkpoints.glob("*")]
        written = "while a checkpoint was written" if ".tmp" in names else "between checkpoints"
        where[written if names else "before the first checkpoint"] += 1


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rng, where, rounds = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder))
        lab.configure(workers=options.workers, checkpoint_minutes=1e-4)
        assert lab.finish(*STAGE1) == 0, lab.log()
        began = time.monotonic()
        assert lab.finish(*STAGE2) == 0, lab.log()
        alone, expected = time.monotonic() - began, remains(lab.run)
        while where.total() < options.kills:
            where += round_of_kills(lab, rng, alone, options.kills - where.total())
            rounds += 1
            if remains(lab.run) != expected:
                print(f"round {rounds}: the result differs after {where.total()} kills")
                return 1
    print(f"{where.total()} kills in {rounds} runs: weights, optimizer, metrics always bit-equal.")
    for moment, count in sorted(where.items()):
        print(f"  killed {moment}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

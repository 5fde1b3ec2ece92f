import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import wait_for

PARENT = """
import os, sys, time
from reid.processes import worker_pool

def busy(seconds):
    print(os.getpid(), flush=True)
    end = time.monotonic() + seconds
    while seconds and time.monotonic() < end:
        pass
    time.sleep(0.5)  # so that the next task goes to another worker

if __name__ == "__main__":
    with worker_pool(2) as pool:
        list(pool.map(busy, [float(sys.argv[1])] * 2))
        print("idle", flush=True)
        time.sleep(600)
"""

TRAINER = """
import os, time
import torch
from reid.data.dataset import Batch
from reid.data.loading import loader

class Clips:
    def load(self, draws):
        frames = torch.zeros(1, 64, 3, 256, 128, dtype=torch.uint8)  # more than a pipe holds
        one = torch.zeros(1)
        return Batch(frames, one, one, one, one, torch.tensor([os.getpid()]), (0,))

batches = loader(Clips(), [[number] for number in range(40)], workers=2)
print(*{int(next(batches).index) for _ in range(2)}, sep="\\n", flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "seconds"),
    [(PARENT, 0), (PARENT, 600), (TRAINER, 0)],
    ids=["idle pool", "busy pool", "loading processes"],
)
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_workers_end_when_their_parent_is_killed(
    tmp_path: Path, code: str, seconds: int, kill: signal.Signals
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        workers = {int(parent.stdout.readline()) for _ in range(2)}
        if code == PARENT and not seconds:
            assert parent.stdout.readline() == "idle\n"
        assert len(workers) == 2
        assert all(map(is_running, workers))
        parent.send_signal(kill)
        parent.wait(60)
        wait_for(lambda: not any(map(is_running, workers)), 30)

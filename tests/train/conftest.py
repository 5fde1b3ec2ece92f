"""One uninterrupted run, which every killed one must equal."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid.train.checkpoint import Checkpoints
from tests.runs import STAGE1, STAGE2, TRAINING, Lab, make_lab, remains

STEPS = 4 * 6 // TRAINING["stage2"]["batch_size"]
"""Of an epoch of stage 2: four identities of six tracklets."""

Fault = Callable[[], None]
"""A `before` of `Lab.start`."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab where both stages ran to their ends, undisturbed."""
    lab = make_lab(tmp_path_factory.mktemp("finished"))
    assert lab.finish(*STAGE1) == 0, lab.log()
    assert lab.finish(*STAGE2) == 0, lab.log()
    return lab


@pytest.fixture(scope="session")
def expected(finished: Lab) -> dict[str, Any]:
    """What the undisturbed stage 2 left."""
    return remains(finished)


@pytest.fixture
def lab(finished: Lab, tmp_path: Path) -> Lab:
    """A copy of that lab, with stage 1 done and stage 2 to do. The index stays fresh."""
    shutil.copytree(finished.folder, tmp_path / "lab")
    lab = Lab(tmp_path / "lab")
    shutil.rmtree(lab.work())
    for path in (*lab.run.glob("stage2.*"), lab.folder / "log"):
        path.unlink()
    return lab


def checkpoints_of(lab: Lab, stage: str = "stage2") -> Path:
    return lab.work(stage) / "checkpoints" / stage


def at_call(owner: Any, name: str, number: int, action: Callable[..., Any]) -> Fault:
    """Make a fault: call `number` of a function is `action(function, *arguments)` instead."""

    def install() -> None:
        original, calls = getattr(owner, name), 0

        def replacement(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                return action(original, *arguments, **options)
            return original(*arguments, **options)

        setattr(owner, name, replacement)

    return install


def kill_at(owner: Any, name: str, number: int) -> Fault:
    """Make a fault: the process kills itself at that call of a function."""
    return at_call(owner, name, number, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))


@pytest.fixture
def two_epochs(lab: Lab) -> Lab:
    """The lab after a stage 2 that was killed before its third checkpoint was written."""
    assert lab.finish(*STAGE2, before=kill_at(Checkpoints, "_write", 3)) == -signal.SIGKILL
    assert len(list(checkpoints_of(lab).iterdir())) == 2
    return lab


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

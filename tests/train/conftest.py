"""One uninterrupted run, which every killed one must equal."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import STAGE1, STAGE2, Lab, make_lab, remains


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
    return remains(finished.run)


@pytest.fixture
def lab(finished: Lab, tmp_path: Path) -> Lab:
    """A lab of its own, with stage 1 done and stage 2 to do."""
    return copy_lab(finished, tmp_path / "lab")


def copy_lab(finished: Lab, folder: Path) -> Lab:
    """Copy a lab, without what stage 2 left. Folder times are kept: the index stays fresh."""
    shutil.copytree(finished.folder, folder)
    copied = Lab(folder)
    shutil.rmtree(copied.run / "checkpoints" / "stage2")
    for path in (*copied.run.glob("stage2.*"), folder / "log"):
        path.unlink()
    return copied


@pytest.fixture
def kill_at() -> Callable[..., Callable[[], None]]:
    """Make a fault: the process kills itself at the n-th call of a function."""

    def make(owner: Any, name: str, call: int, *, where: Callable[..., bool] | None = None) -> Any:
        def install() -> None:
            import os
            import signal

            original, seen = getattr(owner, name), 0

            def fault(*arguments: Any, **options: Any) -> Any:
                nonlocal seen
                if where is None or where(*arguments):
                    seen += 1
                    if seen == call:
                        os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            setattr(owner, name, fault)

        return install

    return make

"""Tests on a real Slurm, the testbed: `make test-slurm`."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.testbed import machine, slurm
from tests.slurm.site import RUN, STAGE2, Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the testbed where there is none, and say why."""
    if slurm.is_up():
        return
    why = machine.lacks() or machine.foreign_slurm(slurm.HOME)
    skip = pytest.mark.skip(reason=why or "the testbed is not up: make test-slurm")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site where everything up to stage 2 of `baseline` has run locally, once for all workers."""
    shared = tmp_path_factory.getbasetemp().parent / "slurm-base"
    with exclusive(shared.with_suffix(".lock")):
        if not (shared / STAGE2).exists():
            shutil.rmtree(shared, ignore_errors=True)
            site = Site.clone(shared)
            site.start(STAGE2).succeeds()
    return Site(shared)


@pytest.fixture(scope="session")
def expected(base: Site) -> dict[str, str]:
    """What an uninterrupted stage 2 gives."""
    return base.outcome()


@pytest.fixture
def site(base: Site, tmp_path: Path) -> Site:
    """A site with stage 1 of `baseline` done and stage 2 to do."""
    path = tmp_path / "site"
    shutil.copytree(base.path, path, symlinks=True)
    run = path / RUN
    shutil.rmtree(run / "checkpoints" / "stage2")
    for file in (*run.glob("stage2.*"), run / "manifest.json", run / "attempts.jsonl"):
        file.unlink()
    (path / "steps.txt").unlink()
    shutil.rmtree(path / "results/demo/logs/train/baseline")
    for log in path.glob("controller*.log"):
        log.unlink()
    return Site(path)


@pytest.fixture
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold the nodes on which jobs are preempted and daemons killed: one test at a time."""
    with exclusive(tmp_path_factory.getbasetemp().parent / "fragile.lock"):
        yield


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str, Site, list[str]], None]:
    """Print what a must-show must print."""
    began = time.monotonic()

    def show(name: str, site: Site, jobs: list[str]) -> None:
        from tests.slurm.site import STEPS

        starts = [line["event"] for line in site.attempts].count("start")
        redone = len(site.steps) - STEPS
        with capsys.disabled():
            print(
                f"\n{name}: jobs {', '.join(jobs)}; attempts {starts}; steps redone {redone}; "
                f"{time.monotonic() - began:.0f} s"
            )

    return show

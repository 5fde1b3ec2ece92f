"""Tests on a real Slurm, the testbed: `make test-slurm`.

They run side by side in one Slurm. A test that disturbs nodes has two of its own. The one that
stops Slurm's controller comes first, while the others prepare what needs no Slurm.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.slurm.site import STAGE2, Site
from tests.slurm.testbed import conf, slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the testbed where there is none, and say why; sort."""
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    items.sort(key=lambda item: ("outage" not in item.name, "must_show_1" not in item.name))
    for item in mine:
        item.add_marker(pytest.mark.timeout(1800, func_only=True))  # locks are waited for before
    if not mine or slurm.is_up():
        return
    why = slurm.impossible()
    for item in mine:
        item.add_marker(pytest.mark.skip(reason=why or "the testbed is not up: make test-slurm"))


@contextmanager
def held(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock that all workers share."""
    with path.open("a") as lock:
        fcntl.flock(lock, how)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers share."""
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(autouse=True)
def use_of_slurm(request: pytest.FixtureRequest, shared: Path) -> Iterator[ExitStack]:
    """Nobody stops Slurm's controller while another test needs it; closed by who has stopped it.

    The others take their turn when there is what needs no Slurm, the base and the local run. Who
    stops it asks for those afterwards, and so comes first.
    """
    alone = "outage" in request.node.name
    if "local" in request.fixturenames:
        request.getfixturevalue("local")
    with ExitStack() as use:
        use.enter_context(held(shared / "slurm.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield use


@pytest.fixture
def pair(shared: Path, worker_id: str) -> Iterator[str]:
    """Two nodes of `spot` and `scavenge` that nobody else uses: the feature that they have."""
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    pair = list(conf.PAIRS)[number % len(conf.PAIRS)]
    with held(shared / f"{pair}.lock"):
        yield pair


@pytest.fixture(scope="session")
def base(shared: Path) -> Site:
    """A site where everything up to stage 2 of `baseline` has run locally, once for all workers."""
    path = shared / "base"
    with held(shared / "base.lock"):
        if not (path / "ready").exists():
            shutil.rmtree(path, ignore_errors=True)
            Site.clone(path).start(STAGE2).succeeds()
            (path / "ready").touch()
    return Site(path)


@pytest.fixture(scope="session")
def expected(base: Site) -> dict[str, str]:
    """What an uninterrupted stage 2 gives."""
    return base.outcome()


@pytest.fixture
def new_site(base: Site, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Makes sites with stage 1 of `baseline` done and stage 2 to do."""
    sites = []

    def make(name: str) -> Site:
        sites.append(base.copy(tmp_path / name))
        sites[-1].forget_stage2()
        return sites[-1]

    yield make
    for site in sites:
        site.clear_away()


@pytest.fixture
def site(new_site: Callable[[str], Site]) -> Site:
    """One of them."""
    return new_site("site")

from collections.abc import Iterator
from pathlib import Path

import pytest

from reid.paths import Results
from tests.report.home import make_home


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small experiment; who changes it puts it back."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_home(folder)
    return folder


@pytest.fixture(scope="module")
def results(home: Path) -> Iterator[Results]:
    """The results of the small experiment, in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield Results(Path("results/little"))

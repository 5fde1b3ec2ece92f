"""A clone of the project, ready to run."""

import pytest

from tests.trees import make_tree
from tests.workflow.workspace import Workspace


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone with data and weights put where config.yaml has them; nothing has run."""
    workspace = Workspace.copy(tmp_path_factory.mktemp("fresh") / "clone")
    make_tree(workspace.path / "data" / "DetReIDX")
    weights = workspace.path / "weights"
    weights.mkdir()
    for name in ("ViT-B-16.pt", "ViT-L-14.pt"):
        (weights / name).write_text("weights")
    return workspace

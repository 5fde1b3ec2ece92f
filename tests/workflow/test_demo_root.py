"""The rendered dataset under Snakemake: made, made anew, and nothing of anybody else's deleted."""

from pathlib import Path

import pytest

from reid.synthetic.marks import claim_staging
from tests.workflow.workspace import Workspace

DEMO = """
dataset: {{name: own, root: {root}, protocols: [A2A]}}
backbones: {{tiny: {{weights: 'open_clip:ViT-B-16-quickgelu:openai'}}}}
trainings: {{plain: {{backbone: tiny}}}}
variants: {{plain: {{training: plain, label: plain}}}}
demo: {{train_identities: 1, test_identities: 1, frames: {frames}, capture_points: 1}}
"""
OPTIONS = ("--configfile", "own.yaml", "--replace-workflow-config")
INDEX = "results/own/index/train.parquet"


def configure(workspace: Workspace, *, frames: int = 1, root: str = "data") -> None:
    (workspace.path / "own.yaml").write_text(DEMO.format(root=root, frames=frames))


def frames(folder: Path) -> int:
    return len(list(folder.rglob("*.jpg")))


@pytest.mark.parametrize("how", [(), ("--forceall",), ("--delete-all-output",)])
def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path, how: tuple[str, ...]) -> None:
    workspace = Workspace(tmp_path)
    configure(workspace)
    precious = tmp_path / "data" / "train" / "0001" / "0001_0001" / "mine.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    printed = workspace.refused(*OPTIONS, INDEX, *how)
    assert "data holds something that `reid demo-data` did not make" in printed
    assert precious.read_text() == "mine"
    assert len(list((tmp_path / "data").rglob("*"))) == 4


def test_rendered_data_is_made_anew_when_its_options_change(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    configure(workspace)
    workspace.snakemake(*OPTIONS, INDEX)
    once = frames(tmp_path / "data")
    assert "Nothing to be done" in workspace.snakemake(*OPTIONS, INDEX)
    configure(workspace, frames=2)
    left = tmp_path / ".data.rendering"
    claim_staging(left)  # as a render that was killed leaves it
    (left / "train").mkdir()
    workspace.snakemake(*OPTIONS, INDEX)
    assert frames(tmp_path / "data") == 2 * once > 0
    assert not left.exists()
    before = (tmp_path / INDEX).stat().st_mtime_ns
    workspace.snakemake(*OPTIONS, INDEX, "--forceall")
    assert frames(tmp_path / "data") == 2 * once
    assert (tmp_path / INDEX).stat().st_mtime_ns > before
    workspace.snakemake(*OPTIONS, INDEX, "--delete-all-output")
    assert frames(tmp_path / "data") == 2 * once
    workspace.snakemake(*OPTIONS, INDEX)
    assert (tmp_path / INDEX).exists()


def test_weights_of_the_user_are_not_deleted_by_the_demo(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    configure(workspace)
    clip = tmp_path / "resources" / "demo" / "weights" / "mine.safetensors"
    clip.parent.mkdir(parents=True)
    clip.write_text("a real CLIP")
    config = tmp_path / "own.yaml"
    config.write_text(
        config.read_text().replace(
            "open_clip:ViT-B-16-quickgelu:openai", "resources/demo/weights/mine.safetensors"
        )
    )
    printed = workspace.refused(*OPTIONS, "--forceall")
    assert "mine.safetensors was not made by `reid demo-weights`" in printed
    assert clip.read_text() == "a real CLIP"

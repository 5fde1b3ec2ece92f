"""Where data, weights and results may lie, and what is no place for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.workflow.workspace import Workspace

STAGE2 = "train/baseline/seed1/stage2.safetensors"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_paths_may_have_spaces_and_folders_may_be_links_to_other_disks(fresh: Workspace) -> None:
    """The log of a training has a second name beside its checkpoints, on whatever disk."""
    shutil.copytree(fresh.path / "data" / "DetReIDX", fresh.path / "data" / "of {mine}")
    (fresh.path / "weights" / "B 16;x.pt").write_text("weights")
    change = (
        "results: my results\ndataset: {root: 'data/of {mine}'}\n"
        "backbones: {vit_b16: {weights: 'weights/B 16;x.pt'}}\n"
    )
    results = fresh.path / "my results" / "detreidx"
    with fresh.appended("spaces.yaml", change), TemporaryDirectory(dir="/dev/shm") as disk:
        if Path(disk).stat().st_dev == fresh.path.stat().st_dev:
            pytest.skip("needs a second file system")
        results.mkdir(parents=True)
        (results / "train").symlink_to(disk)
        target = f"my results/detreidx/{STAGE2}"
        fresh.snakemake(target, "--configfile", "spaces.yaml")
        log = results / "logs" / "train" / "baseline" / "seed1" / "stage2.log"
        assert log.samefile(Path(disk) / "baseline" / "seed1" / "stage2.log")
        assert (results / STAGE2).exists()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.name)])
def test_what_is_no_folder_is_named_before_anything_runs(
    fresh: Workspace, make: Callable[[Path], None]
) -> None:
    make(fresh.path / "taken")
    try:
        with fresh.appended("taken.yaml", "results: taken\n"):
            printed = fresh.refused("-n", "--configfile", "taken.yaml")
    finally:
        (fresh.path / "taken").unlink()
    assert "taken is a" in printed
    assert "name another place" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("results: a{b}c", "results: a{b}c has braces"),
        ("backbones: {vit_b16: {weights: 'a{b}'}}", "backbones.vit_b16.weights: a{b} has brac"),
    ],
)
def test_braces_in_names_that_snakemake_sees_are_refused(
    fresh: Workspace, option: str, message: str
) -> None:
    with fresh.appended("braces.yaml", f"{option}\n"):
        assert message in fresh.refused("-n", "--configfile", "braces.yaml")

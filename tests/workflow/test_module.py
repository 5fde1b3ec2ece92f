"""The workflow as a module of another one, from another working directory, without hooks."""

import shutil
from pathlib import Path

import pytest

from tests.trees import make_tree
from tests.workflow.workspace import Workspace

SNAKEFILE = """
configfile: "mini.yaml"


module xfd:
    snakefile:
        "{snakefile}"
    config:
        config
    {prefix}


use rule * from xfd as xfd_*


rule ours:
    default_target: True
    input:
        rules.xfd_table.output,
"""


@pytest.mark.parametrize(
    ("prefix", "results", "table"),
    [
        ("", "results", "results/mini/tables/ablation.csv"),
        ('prefix: "reid"', "results", "reid/results/mini/tables/ablation.csv"),
        ("", "elsewhere/all", "elsewhere/all/mini/tables/ablation.csv"),
    ],
    ids=["plain", "prefix", "results elsewhere"],
)
def test_it_runs_as_a_module_and_then_has_nothing_to_do(
    tmp_path: Path, prefix: str, results: str, table: str
) -> None:
    clone = Workspace.copy(tmp_path / "clone")
    theirs = Workspace(tmp_path / "theirs", project=clone.path)
    make_tree(theirs.path / "data")
    (theirs.path / "tiny.safetensors").write_text("weights")
    shutil.copy(Path(__file__).with_name("mini.yaml"), theirs.path)
    with (theirs.path / "mini.yaml").open("a") as config:
        config.write(f"results: {results}\n")
    text = SNAKEFILE.format(snakefile=clone.snakefile, prefix=prefix)
    (theirs.path / "Snakefile").write_text(text)
    options = ("--snakefile", "Snakefile", "--cores", "2", "--no-hooks")
    printed = theirs.command("snakemake", *options)
    assert printed.returncode == 0, printed.stdout
    assert (theirs.path / table).exists()
    assert {path.name for path in theirs.path.iterdir()} == {
        *(".snakemake", "Snakefile", "data", "mini.yaml", "tiny.safetensors", "verbs.txt"),
        Path(table).parts[0],
    }
    assert "Nothing to be done" in theirs.command("snakemake", *options).stdout


def test_a_second_configfile_is_an_error_with_the_right_form(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("seeds: [1]\n")
    printed = workspace.refused("-n", "--configfile", "a.yaml", "--configfile", "b.yaml")
    assert "--configfile a.yaml b.yaml" in printed

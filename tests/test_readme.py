"""What the README and the guides tell people to type is typed here; what they point at exists."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from reid import cli
from reid.model.vit import Geometry
from tests.clips import state_dict
from tests.trees import make_tree
from tests.workflow.workspace import ROOT, Workspace

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "config" / "README.md"])
PROGRAMS = ("make", "snakemake", "reid", "python", "mamba", "sha256sum", ".", ".ci/run", "pip")
SMALL = Geometry(128, 12, 16, 14, 64, 64, 2, 77, 49408)
"""Cheap to load, and as deep as B/16: the paper's prompts go into nine blocks."""

ELSEWHERE = {". .venv/bin/activate", ".ci/run"}
"""Commands that no test can run: they activate what `make` installs, or run the tests."""


def commands(document: Path) -> list[str]:
    """Indented lines that begin with a program, without their comments."""
    lines = re.findall(r"^ {4}(\S.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    found = [re.split(r"\s+#\s", line)[0].strip() for line in lines]
    return [line for line in found if line.split()[0] in PROGRAMS]


ALL = sorted({(doc.name, command) for doc in DOCUMENTS for command in commands(doc)})


def of(*programs: str) -> list[tuple[str, str]]:
    return [each for each in ALL if each[1].split()[0] in programs]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What the README asks for is in place: a dataset in DetReIDX's folders, weights, own files."""
    home = tmp_path_factory.mktemp("clone")
    for folder in ("config", "cluster"):
        shutil.copytree(ROOT / folder, home / folder)
    (home / "slurm").symlink_to("cluster/slurm")
    make_tree(home / "data" / "DetReIDX")
    (home / "weights").mkdir()
    for name in ("ViT-B-16.pt", "ViT-L-14.pt"):
        tensors = {name: tensor.clone() for name, tensor in state_dict(SMALL).items()}
        torch.save(tensors, home / "weights" / name)
    (home / "my.yaml").write_text("seeds: [1, 2]\n")
    extending = (ROOT / "docs" / "EXTENDING.md").read_text()
    mine = re.search(r"^    trainings:\n(?:    .*\n|\n)+?(?=\n\S)", extending, re.MULTILINE)
    assert mine
    (home / "mine.yaml").write_text("\n".join(line[4:] for line in mine[0].splitlines()))
    return Workspace(home)


@pytest.mark.parametrize(("document", "command"), of("make"))
def test_make_has_the_target(document: str, command: str) -> None:
    done = subprocess.run(
        ["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("document", "command"), of("snakemake"))
def test_snakemake_plans_it(clone: Workspace, document: str, command: str) -> None:
    arguments = shlex.split(command)[1:]
    if "--unlock" in arguments:
        clone.snakemake("--unlock")
    else:
        clone.plan(*[each for each in arguments if each != "-n"])


@pytest.mark.parametrize(("document", "command"), of("reid"))
def test_reid_understands_it(clone: Workspace, document: str, command: str) -> None:
    cli.build_parser().parse_args(shlex.split(command)[1:])


def test_the_first_commands_on_a_dataset_in_their_order(clone: Workspace) -> None:
    verbs = ("index", "check", "params", "status")
    todo = [c.split() for c in commands(ROOT / "README.md") if c.startswith("reid ")]
    todo = [words for words in todo if words[1] in verbs and "scaled.csv" not in words]
    assert {words[1] for words in todo} == set(verbs)
    for words in todo:
        done = clone.command(*words)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("document", "command"), of("python"))
def test_modules_have_help(clone: Workspace, document: str, command: str) -> None:
    _, dash_m, module, *_ = shlex.split(command)
    assert dash_m == "-m"
    done = clone.command(module, "--help")
    assert done.returncode == 0, done.stdout


def test_no_other_command_is_documented() -> None:
    assert {command for _, command in of("mamba", "sha256sum", "pip", ".", ".ci/run")} == ELSEWHERE
    assert all(of(program) for program in ("make", "snakemake", "reid", "python"))
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_tests_named_as_evidence_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("http") or (document.parent / target).exists(), target
    for target in re.findall(r"`(tests/[\w/]+\.py)", text):
        assert (ROOT / target).exists(), target


def test_the_list_of_faults_is_that_of_the_tests() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "FAULTS.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"def (test_\w+)", sources))
    assert named <= tests
    assert {name for name in tests if "_fault_" in name} <= named

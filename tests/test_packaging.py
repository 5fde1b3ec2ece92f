"""The three places that name dependencies say the same."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{requirement} is not pinned exactly"
        assert requirement.url is None
        found[canonicalize_name(requirement.name)] = specifier.version
    assert len(found) == len(requirements), "a package is pinned twice"
    return found


@pytest.mark.parametrize("requirement", REQUIRED + DEVELOPMENT, ids=lambda r: r.name)
def test_a_dependency_and_what_it_installs_are_pinned(requirement: Requirement) -> None:
    pinned, seen, waiting = pins(), set(), [requirement]
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
    while waiting:
        current = waiting.pop()
        name = canonicalize_name(current.name)
        assert name in pinned, f"{name} is needed but not pinned"
        for text in (distribution(name).requires or ()) if name not in seen else ():
            needed = Requirement(text)
            extras = current.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
        seen.add(name)


def test_the_stack_that_users_asked_for_stays() -> None:
    stack = "snakemake torch open-clip-torch submitit numpy scipy pandas pyyaml"
    assert set(stack.split()) <= {canonicalize_name(r.name) for r in REQUIRED}


@pytest.mark.parametrize("folder", ["reid", "cluster", "tests", "benchmarks"])
def test_every_imported_package_is_a_declared_dependency(folder: str) -> None:
    allowed = REQUIRED + (DEVELOPMENT if folder in ("tests", "benchmarks") else [])
    names = {canonicalize_name(requirement.name) for requirement in allowed}
    known = sys.stdlib_module_names | {"reid", "cluster", "tests", "benchmarks"}
    providers = packages_distributions()
    for path in (ROOT / folder).rglob("*.py"):
        imports = re.findall(r"^ *(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        for module in set(imports) - known:
            assert names & set(map(canonicalize_name, providers.get(module, ()))), (path, module)


def test_conda_installs_the_same_python_and_packages() -> None:
    *packages, pip = ENVIRONMENT["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    (python,) = [Requirement(p.replace("=", "~=", 1) + ".0") for p in packages if p != "pip"]
    assert python.name == "python"
    (minor,) = {specifier.version.removesuffix(".0") for specifier in python.specifier}
    assert PROJECT["requires-python"] == f">={minor}"
    environments = ROOT / "workflow" / "envs"
    assert yaml.safe_load((environments / "reid.yaml").read_text())["dependencies"] == packages
    script = (environments / "reid.post-deploy.sh").read_text()
    assert "pip install -c constraints.txt -e ." in script


def test_no_file_names_a_host_or_a_folder_of_one_machine() -> None:
    for name in ("constraints.txt", "environment.yml", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not [part for part in ("://", "--index-url", "/opt/") if part in text], name
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert build["requires"] == [f"setuptools=={pins()['setuptools']}"]


@pytest.mark.parametrize(
    ("lacks", "message"),
    [("version_info", "is not Python >= 3.11"), ("ensurepip", "apt install python3-venv")],
)
def test_make_says_what_a_machine_lacks(tmp_path: Path, lacks: str, message: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *{lacks}*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / ".venv").exists()

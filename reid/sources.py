"""Which code of this package a step runs, by content.

Snakemake does not see the Python code that a rule runs. `modules_behind` finds the modules that a
step's entry module imports, directly or not, and hashes each. Comments, docstrings and layout do
not count, nor do `PLUMBING` modules: they hand a step paths, printed lines, or options that are
recorded by value. Modules are parsed, not imported.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from reid.errors import UserError

PACKAGE = Path(__file__).resolve().parent

PLUMBING = frozenset(
    f"reid.{name}"
    for name in (
        "chain",
        "config",
        "errors",
        "files",
        "paths",
        "progress",
        "provenance",
        "sources",
        "steps",
    )
)


def demand_one_checkout(*folders: Path) -> None:
    """Raise UserError where a folder is a checkout of this package that is not the imported one.

    It happens where two checkouts share one environment: jobs would run other code than is hashed.
    """
    for folder in folders:
        other = folder / "reid" / "sources.py"
        if other.is_file() and not other.samefile(__file__):
            raise UserError(
                f"{folder} is a checkout of this project, but the package that is imported here is "
                f"{PACKAGE}: give each checkout its own environment (`make`), or install this one "
                f"here: pip install -e {folder}"
            )


@cache
def modules_behind(entry: str) -> dict[str, str]:
    """Hash of the code of `entry` and of every module of this package that it imports, by name."""
    hashes: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in hashes or name in PLUMBING or name.startswith("reid.config."):
            continue
        hashes[name], imports = _read(name)
        waiting.extend(imports)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package first
    return dict(sorted(hashes.items()))


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """Hash of a module without comments, docstrings and layout; modules of ours it imports."""
    path = _file(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # `from reid.data import index` names a module, `from reid.data.index import build` does not.
    imports = tuple(module for module in _imported(tree, package) if _is_ours(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12], imports


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every name that an import statement may take for a module, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE.name and _file(name).exists()


def _file(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_text(line: ast.stmt) -> bool:
    """Whether a statement is a string alone, as docstrings are."""
    return isinstance(line, ast.Expr) and isinstance(getattr(line.value, "value", None), str)

"""The code behind a module of this package, found by reading it: nothing heavy is imported.

Comments, docstrings and layout do not count. Nor do `PLUMBING` modules: what reaches a stage
through them is a path, a printed line, or an option that is hashed by its value.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PLUMBING = frozenset(
    {
        "reid.artifacts",
        "reid.config",
        "reid.errors",
        "reid.files",
        "reid.fingerprint",
        "reid.progress",
        "reid.provenance",
        "reid.sources",
    }
)

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Module:
    """What a source file says."""

    meaning: str
    """The code without comments, docstrings and layout."""
    imports: tuple[str, ...]
    """Modules of this package that it imports, also inside functions."""


def code_hash(entry: str) -> str:
    """Hex hash of the source of `entry` and of every module of this package it imports."""
    behind = modules_behind(entry)
    text = "".join(f"{name}\n{behind[name].meaning}\n" for name in sorted(behind))
    return hashlib.sha256(text.encode()).hexdigest()


def modules_behind(entry: str) -> dict[str, Module]:
    """The modules of this package that `entry` imports, directly or not, itself included."""
    found: dict[str, Module] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found or name in PLUMBING or name.startswith("reid.config."):
            continue
        path = _file(name)
        found[name] = _read(name, path, path.stat().st_mtime_ns)
        waiting.extend(found[name].imports)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package first
    return found


@cache
def _read(name: str, path: Path, _modified: int) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # `from reid.data import index` names a module, `from reid.data.index import build` does not.
    imports = tuple(found for found in _imported(tree, package) if _is_ours(found))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return Module(ast.unparse(tree), imports)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE.name and _file(name).exists()


def _file(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_text(line: ast.stmt) -> bool:
    """Whether a statement is only a string, as docstrings are."""
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )

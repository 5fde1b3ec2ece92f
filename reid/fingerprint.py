"""What a stage depends on besides its input files: its code and the options it reads.

Snakemake re-runs a job when a file, a parameter or the rule's text changes, but it does not see
the Python that the rule calls. So every rule carries the fingerprint of its stage as a parameter:
a hash of the source of all modules of this package that the stage's entry module imports
(directly or not), and of the options that the stage reads. Changes upstream arrive through files.

Comments, docstrings and layout of the code do not count. Nor do `PLUMBING` modules: what reaches
a stage through them is a path, or an option that is hashed by its value.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reid.config import Config, Training
from reid.files import sha256_of_json

ENTRIES = {
    "demo_data": "reid.synthetic.benchmark",
    "demo_weights": "reid.synthetic.pretrain",
    "index": "reid.data.index",
    "stage1": "reid.train.stage1",
    "stage2": "reid.train.stage2",
    "extract": "reid.retrieval.extract",
    "retrieve": "reid.retrieval.retrieve",
    "table": "reid.report.table",
}
"""The module that each stage of the workflow enters by."""

PLUMBING = frozenset(
    {
        "reid.artefacts",
        "reid.config",
        "reid.errors",
        "reid.files",
        "reid.fingerprint",
        "reid.progress",
        "reid.provenance",
    }
)

PACKAGE = Path(__file__).resolve().parent


def fingerprint(stage: str, settings: Mapping[str, Any]) -> str:
    """Hex hash of a stage's code and of the options it reads (JSON-able)."""
    return sha256_of_json({"code": code_hash(ENTRIES[stage]), "settings": settings})[:16]


# What each stage reads of the configuration. A key that no function below returns changes no
# result: it is the business of the machine (`runtime`).


def demo_data_settings(config: Config) -> dict[str, Any]:
    """Options of the rendered benchmark."""
    return _dump(config.demo, exclude={"captions", "clip_epochs"}) if config.demo else {}


def demo_weights_settings(config: Config) -> dict[str, Any]:
    """Options of the tiny CLIPs of the rendered benchmark."""
    return _dump(config.demo, include={"seed", "captions", "clip_epochs"}) if config.demo else {}


def index_settings(config: Config) -> dict[str, Any]:
    """Options of the index: the dataset, but not whether its metadata is used."""
    return _dump(config.dataset, exclude={"name", "metadata"})


def stage1_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of stage 1, which sees plain CLIP: trainings that agree in these share it."""
    options = config.trainings[training]
    return {
        "weights": _weights(config, options),
        "clip": _dump(options.clip, exclude={"test_sampling"}),
        "model": _dump(options.model, include={"stride", "positions"}),
        "augment": _dump(options.augment) if options.stage1.view == "augmented" else None,
        **_dump(options, include={"stage1", "validation"}),
    }


def stage2_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of stage 2; those of stage 1 arrive through its file."""
    options = config.trainings[training]
    return {
        "weights": _weights(config, options),
        "clip": _dump(options.clip, exclude={"test_sampling"}),
        "metadata": config.dataset.metadata,
        **_dump(options, include={"model", "finetune", "augment", "stage2", "validation"}),
    }


def run_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of both stages: what the final weights of a run depend on, as its manifest has it."""
    return {
        "stage1": stage1_settings(config, training),
        "stage2": stage2_settings(config, training),
    }


def extract_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of feature extraction: the network, its input, and whether clips are mirrored."""
    options = config.trainings[training]
    return {
        "weights": _weights(config, options),
        "metadata": config.dataset.metadata,
        "flip": any(
            variant.flip_tta for variant in config.variants.values() if variant.training == training
        ),
        **_dump(options, include={"clip", "model"}),
    }


def retrieve_settings(config: Config, variant: str) -> dict[str, Any]:
    """Options of retrieval: how a variant uses its features."""
    return _dump(config.variants[variant], include={"flip_tta", "rerank", "tuned"})


def table_settings(config: Config) -> dict[str, Any]:
    """Options of the table: its rows in order, their texts and the paper's figures."""
    return {
        "rows": [[name, _dump(variant)] for name, variant in config.variants.items()],
        "seeds": config.seeds,
        "protocols": config.dataset.protocols,
    }


def dataset_stamp(root: Path) -> str:
    """Cheap hash of what lies under a dataset root: changes when a tracklet comes or goes.

    Covers names and times of the folders down to the person folders, `train/<person>` and
    `<protocol>/{query,gallery}/<person>`. Files changed inside a tracklet are not seen here;
    training and extraction check each tracklet against the index.
    """
    digest = hashlib.sha256()
    parts = sorted(child for child in root.iterdir() if child.is_dir())
    folders = [
        found for part in parts for found in _folders(part, 1 if part.name == "train" else 2)
    ]
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        digest.update(f"{name}\0{folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@cache
def code_hash(entry: str) -> str:
    """Hex hash of the source of `entry` and of every module of this package it imports."""
    digest = hashlib.sha256()
    for name in sorted(modules_behind(entry)):
        digest.update(f"{name}\n{_meaning(_source(name))}\n".encode())
    return digest.hexdigest()


def modules_behind(entry: str) -> frozenset[str]:
    """Names of the modules of this package that `entry` imports, itself included.

    Found in the source, so that nothing heavy is imported; imports inside functions count.
    """
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found or name in PLUMBING:
            continue
        found.add(name)
        waiting.extend(_imported(name))
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package first
    return frozenset(found)


def _imported(name: str) -> Iterator[str]:
    package = name if _file(name).name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            candidates = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        # `from reid.data import index` names a module, `from reid.data.index import build` not.
        yield from (found for found in candidates if _is_ours(found))


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE.name and _file(name).exists()


def _file(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _source(name: str) -> str:
    return _file(name).read_text(encoding="utf-8")


def _meaning(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                )
            ] or [ast.Pass()]
    return ast.unparse(tree)


def _folders(folder: Path, depth: int) -> list[Path]:
    """`folder` and the folders below it down to `depth` levels, sorted."""
    if depth == 0:
        return [folder]
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    return [folder, *(found for child in children for found in _folders(child, depth - 1))]


def _weights(config: Config, training: Training) -> str:
    return config.backbones[training.backbone].weights


def _dump(
    section: Any, *, include: set[str] | None = None, exclude: set[str] | None = None
) -> dict[str, Any]:
    dumped: dict[str, Any] = section.model_dump(mode="json", include=include, exclude=exclude)
    return dumped

"""What a stage depends on besides its input files: its code and the options it reads.

Snakemake runs a job again when a file, a parameter or the rule's text changes, but does not see
the Python code that the rule runs. So every rule has the fingerprint of its stage as a parameter:
a hash of all modules of this package that the stage's entry module imports (directly or not) and
of the options that the stage reads. Changes of earlier stages arrive through files.

Comments, docstrings and layout of code do not count, nor do `PLUMBING` modules: they hand a stage
paths, printed lines, or options that are hashed by value. Modules are parsed, not imported.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from reid.config import Config, Dataset, Training
from reid.files import sha256_of_file, sha256_of_json

ENTRIES = {
    "demo_data": "reid.synthetic.benchmark",
    "demo_weights": "reid.synthetic.pretrain",
    "index": "reid.data.index",
    "stage1": "reid.train.stage1",
    "stage2": "reid.train.stage2",
    "extract": "reid.features.extract",
    "tune": "reid.retrieval.tune",
    "retrieve": "reid.retrieval.retrieve",
    "submission": "reid.retrieval.submission",
    "table": "reid.report.table",
    "report": "reid.report.page",
}
"""The module in which each stage of the workflow starts."""

TEMPLATES = Path(__file__).parent / "report" / "templates"
"""Of the report: code that is not Python."""

PLUMBING = frozenset(
    f"reid.{name}"
    for name in ("config", "errors", "files", "fingerprint", "paths", "progress", "provenance")
)

PACKAGE = Path(__file__).resolve().parent


def fingerprint(stage: str, settings: Mapping[str, Any]) -> str:
    """Hex hash of a stage's code and of the options it reads (JSON-able)."""
    return sha256_of_json({"code": code_hash(ENTRIES[stage]), "settings": settings})[:16]


def code_hash(entry: str) -> str:
    """Hex hash of the code of `entry` and of every module of this package that it imports."""
    modules = modules_behind(entry)
    text = "".join(f"{name}\n{modules[name]}\n" for name in sorted(modules))
    return hashlib.sha256(text.encode()).hexdigest()


def modules_behind(entry: str) -> dict[str, str]:
    """Modules of this package that `entry` imports, directly or not, and itself.

    Values are their code without comments, docstrings and layout.
    """
    modules: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in modules or name in PLUMBING or name.startswith("reid.config."):
            continue
        path = _file(name)
        modules[name], imports = _read(name, path, path.stat().st_mtime_ns)
        waiting.extend(imports)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs its package first
    return modules


@cache
def _read(name: str, path: Path, _modified: int) -> tuple[str, tuple[str, ...]]:
    """Code of a module without comments, docstrings and layout; modules of ours it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # `from reid.data import index` names a module, `from reid.data.index import build` does not.
    imports = tuple(module for module in _imported(tree, package) if _is_ours(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree), imports


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


# What each stage reads of the configuration. A key that no function below returns changes no
# result: `runtime`, except for its precision, says how this machine works.


def demo_data_settings(config: Config) -> dict[str, Any]:
    """Options of the rendered benchmark."""
    return _dump(config.demo, exclude={"captions", "clip_epochs"}) if config.demo else {}


def demo_weights_settings(config: Config) -> dict[str, Any]:
    """Options of the tiny CLIPs of the rendered benchmark."""
    return _dump(config.demo, include={"seed", "captions", "clip_epochs"}) if config.demo else {}


def index_settings(config: Config) -> dict[str, Any]:
    """Options of the index: its content, not the dataset's location or the tolerated shares.

    Moving the dataset or changing a tolerance is no reason to train again. `dataset_stamp`
    detects another dataset in its place.
    """
    return _dump(
        config.dataset, include={"layout", "manifest", "protocols", "check_sizes", "damaged"}
    )


def stage1_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of stage 1, which sees plain CLIP: trainings that agree in these share it."""
    options = config.trainings[training]
    return {
        **_weights(config, options),
        "clip": _dump(options.clip, exclude={"test_sampling"}),
        "model": _dump(options.model, include={"stride", "positions"}),
        "precision": config.runtime.precision,
        "augment": _dump(options.augment) if options.stage1.view == "augmented" else None,
        **_dump(options, include={"stage1", "validation"}),
    }


def stage1_owners(config: Config) -> dict[str, str]:
    """For each training the first one whose stage 1 is the same: it runs once, for all of them."""
    owners: dict[str, str] = {}
    for name in config.trainings:
        own = stage1_settings(config, name)
        same = (first for first in owners.values() if stage1_settings(config, first) == own)
        owners[name] = next(same, name)
    return owners


def stage2_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of stage 2; those of stage 1 arrive through its file."""
    options = config.trainings[training]
    return {
        **_weights(config, options),
        "clip": _dump(options.clip, exclude={"test_sampling"}),
        "metadata": config.dataset.metadata,
        "precision": config.runtime.precision,
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
        **_weights(config, options),
        "metadata": config.dataset.metadata,
        "precision": config.runtime.precision,
        "flip": any(
            variant.flip_tta for variant in config.variants.values() if variant.training == training
        ),
        **_dump(options, include={"clip", "model"}),
    }


def tune_settings(config: Config, variant: str) -> dict[str, Any]:
    """Options of the choice of re-ranking parameters on held-out identities; its file has them."""
    options = config.variants[variant]
    return {
        "training": options.training,
        "protocols": list(config.dataset.protocols),
        "flip_tta": options.flip_tta,
        **_dump(config.trainings[options.training], include={"validation"}),
        **_dump(config, include={"tune"}),
    }


def retrieve_settings(config: Config, variant: str) -> dict[str, Any]:
    """Options of retrieval: how a variant uses its features."""
    return _dump(config.variants[variant], include={"flip_tta", "rerank", "tuned"})


def submission_settings(config: Config, variant: str) -> dict[str, Any]:
    """Options of the challenge's file: whose features, how ranked, which protocols."""
    return {
        **retrieve_settings(config, variant),
        "training": config.variants[variant].training,
        "protocols": config.dataset.protocols,
    }


def table_settings(config: Config) -> dict[str, Any]:
    """Options of the table: its rows in order, their texts and the paper's figures."""
    return {
        "rows": [[name, _dump(variant)] for name, variant in config.variants.items()],
        "seeds": config.seeds,
        "protocols": config.dataset.protocols,
    }


def report_settings(config: Config) -> dict[str, Any]:
    """Options of the report: those of its table, its own, and its templates."""
    templates = sorted(TEMPLATES.iterdir())
    return {
        **table_settings(config),
        **_dump(config, include={"report"}),
        "templates": [sha256_of_file(path) for path in templates],
    }


def lists_of(dataset: Dataset) -> list[Path]:
    """Files that say what a dataset holds, in layouts that have some, and what to leave out."""
    lists = [] if dataset.damaged is None else [dataset.damaged]
    if dataset.layout == "manifest":
        return [*lists, dataset.manifest or dataset.root / "manifest.csv"]
    if dataset.layout in ("mars", "g2a-vreid"):
        return [*lists, *sorted((dataset.root / "info").glob("*"))]
    return lists


def dataset_stamp(root: Path, lists: Sequence[Path] = ()) -> str:
    """Cheap hash of a dataset root: changes when a tracklet is added or removed.

    Covers names and times of the folders down to the person folders, `train/<person>` and
    `<protocol>/{query,gallery}/<person>`, and names and contents of `lists`. Files changed inside
    a tracklet are not seen here; training and extraction check each tracklet against the index.
    """
    digest = hashlib.sha256()
    for path in filter(Path.is_file, lists):  # what is missing is the index's error
        digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    parts = sorted(child for child in root.iterdir() if child.is_dir())
    for part in parts:
        for folder in _folders(part, 1 if part.name == "train" else 2):
            name = folder.relative_to(root).as_posix()
            digest.update(f"{name}\0{folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _folders(folder: Path, depth: int) -> list[Path]:
    """`folder` and the folders below it down to `depth` levels, sorted."""
    if depth == 0:
        return [folder]
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    return [folder, *(below for child in children for below in _folders(child, depth - 1))]


def _weights(config: Config, training: Training) -> dict[str, str]:
    backbone = config.backbones[training.backbone]
    return backbone.model_dump(include={"weights", "activation"}, exclude_none=True)


def _dump(
    section: Any, *, include: set[str] | None = None, exclude: set[str] | None = None
) -> dict[str, Any]:
    dumped: dict[str, Any] = section.model_dump(mode="json", include=include, exclude=exclude)
    return dumped

"""What a stage depends on besides its input files: its code and the options it reads.

Snakemake re-runs a job when a file, a parameter or the rule's text changes, but it does not see
the Python that the rule calls. So every rule carries the fingerprint of its stage as a parameter:
a hash of the source of all modules of this package that the stage's entry module imports
(directly or not), and of the options that the stage reads. Changes upstream arrive through files.

What counts of the code: `reid.sources`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid.config import Config, Dataset, Training
from reid.files import sha256_of_file, sha256_of_json
from reid.sources import code_hash

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
"""The module that each stage of the workflow enters by."""


TEMPLATES = Path(__file__).parent / "report" / "templates"
"""Of the report: code that is no Python."""


def fingerprint(stage: str, settings: Mapping[str, Any]) -> str:
    """Hex hash of a stage's code and of the options it reads (JSON-able)."""
    return sha256_of_json({"code": code_hash(ENTRIES[stage]), "settings": settings})[:16]


# What each stage reads of the configuration. A key that no function below returns changes no
# result: it is the business of the machine (`runtime`, but for its precision).


def demo_data_settings(config: Config) -> dict[str, Any]:
    """Options of the rendered benchmark."""
    return _dump(config.demo, exclude={"captions", "clip_epochs"}) if config.demo else {}


def demo_weights_settings(config: Config) -> dict[str, Any]:
    """Options of the tiny CLIPs of the rendered benchmark."""
    return _dump(config.demo, include={"seed", "captions", "clip_epochs"}) if config.demo else {}


def index_settings(config: Config) -> dict[str, Any]:
    """Options of the index: what it holds, not where that lies nor how much of it may be odd.

    A tolerance decides whether an index is made, and a root that moved holds the same dataset:
    neither is worth every training after it. `dataset_stamp` sees another dataset in its place.
    """
    return _dump(
        config.dataset, include={"layout", "manifest", "protocols", "check_sizes", "damaged"}
    )


def stage1_settings(config: Config, training: str) -> dict[str, Any]:
    """Options of stage 1, which sees plain CLIP: trainings that agree in these share it."""
    options = config.trainings[training]
    return {
        "weights": _weights(config, options),
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
        "weights": _weights(config, options),
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
        "weights": _weights(config, options),
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
    """Cheap hash of what lies under a dataset root: changes when a tracklet comes or goes.

    Covers names and times of the folders down to the person folders, `train/<person>` and
    `<protocol>/{query,gallery}/<person>`, and names and contents of `lists`. Files changed inside
    a tracklet are not seen here; training and extraction check each tracklet against the index.
    """
    digest = hashlib.sha256()
    for path in filter(Path.is_file, lists):  # what is missing is the index's error
        digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    parts = sorted(child for child in root.iterdir() if child.is_dir())
    folders = [
        found for part in parts for found in _folders(part, 1 if part.name == "train" else 2)
    ]
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        digest.update(f"{name}\0{folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


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

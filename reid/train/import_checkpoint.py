"""A checkpoint of the released code as the final weights of one of our trainings."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid import provenance
from reid.chain import IMPORT, Chain
from reid.config import Config, Validation
from reid.data.holdout import part
from reid.data.layouts import cameras_of
from reid.data.stored import read_split
from reid.errors import UserError
from reid.files import sha256_of_file
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.released import describe_import, load_reference_checkpoint
from reid.model.weights import Weights, load_backbone, read_tensors
from reid.train.common import build_model, identities_of, save_tensors
from reid.train.stage2 import trained_tensors


def run(config: Config, file: Path, name: str, seed: int, *, allow: Sequence[str] = ()) -> None:
    """Write `stage2.safetensors` of the training `name` from a released checkpoint.

    Prints what became of every tensor. `allow`: names or patterns of tensors that may be left
    over or missing. The tower is stored too if it is not that of the configured CLIP weights.
    Raises UserError when the file is unreadable, does not fit the training's options, or has
    another number of identities than the index; and when the training has weights already.
    """
    training, chain, made = config.trainings[name], Chain(config), provenance.facts()
    job = chain.steps.stage2(name, seed)
    target, index = job.output, job.inputs["index"]
    if target.exists():
        raise UserError(f"{target} exists: move it away, or import into another training or seed")
    given = read_tensors(file)
    classes = _classes(given, file)
    identities = _identities(index, training.validation, classes, file)
    cameras = cameras_of(config.dataset.layout, index)
    weights = load_backbone(config.backbones, training.backbone)
    model = build_model(training, weights, identities=classes, cameras=cameras, seed=seed)
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    tower = _load(given, model, weights, allow=allow, file=file)
    facts = {
        "identities": identities,
        "cameras": cameras,
        "backbone": weights.identity,
        "seed": seed,
        "model": training.model.model_dump(mode="json"),
        "tower": sorted(tower),
    }
    save_tensors(target, {**trained_tensors(model), **tower}, facts)
    inputs = {"weights": weights.sha256, "checkpoint": sha256_of_file(file)}
    stamp = {**chain.stamp(job), "step": IMPORT, "inputs": inputs}
    chain.write_manifest(job, stamp, {**made, "checkpoint": file.as_posix()})
    print(f"wrote {target} ({len(identities)} identities, checkpoint {inputs['checkpoint'][:16]})")


def _classes(given: dict[str, Tensor], file: Path) -> int:
    if "classifier.weight" not in given:
        raise UserError(
            f"{file}: no tensor 'classifier.weight': expected a checkpoint of VSLA-CLIP or "
            "VReID-XFD, in their names"
        )
    return len(given["classifier.weight"])


def _identities(index: Path, held_out: Validation, classes: int, file: Path) -> list[int]:
    """Identities that are trained on; plain numbers when there is no index to name them."""
    if not index.exists():
        return list(range(classes))
    identities = identities_of(part(read_split(index), held_out, "train"))
    if len(identities) != classes:
        raise UserError(
            f"{file} was trained on {classes} identities, but {index} has {len(identities)}: "
            "it was trained on another split"
        )
    return identities


def _load(
    given: dict[str, Tensor],
    model: VideoReID,
    weights: Weights,
    *,
    allow: Sequence[str],
    file: Path,
) -> dict[str, Tensor]:
    """Load the checkpoint into the model and print the report.

    Returns the frozen tensors of the tower that differ from the configured CLIP weights by more
    than rounding to half precision.
    """
    before = {
        f"visual.{name}": p.detach().clone()
        for name, p in model.visual.named_parameters()
        if not p.requires_grad
    }
    try:
        print(describe_import(load_reference_checkpoint(given, model, allow=allow)))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    loaded = model.state_dict()
    tower = {
        name: loaded[name]
        for name, tensor in before.items()
        if not torch.allclose(loaded[name], tensor, rtol=1e-3, atol=1e-4)
    }
    if tower:
        print(
            f"{len(tower)} of {len(before)} frozen tensors of the tower are not those of "
            f"{weights.source}: stored with the training"
        )
    return tower

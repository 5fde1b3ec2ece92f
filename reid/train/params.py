"""The table of parameters of a training: what trains in which stage, and at which rate."""

import torch

from reid.config import Config, Training
from reid.data.holdout import part
from reid.data.layouts import cameras_of
from reid.data.stored import read_split
from reid.errors import UserError
from reid.model.param_groups import Group, describe, frozen_groups, trainable_groups
from reid.model.text import IdentityContexts, TextTower
from reid.model.vit import Geometry
from reid.model.weights import GEOMETRIES, read_geometry
from reid.paths import Results
from reid.train.common import build_model, identities_of


def run(config: Config, name: str, *, geometry: str | None, classes: int | None) -> None:
    """Print the table of the training `name`.

    The geometry is read from its weights file unless named, the number of identities from the
    index unless given. Raises UserError when neither is there.
    """
    training = config.trainings[name]
    weights = config.backbones[training.backbone].weights
    sizes = GEOMETRIES[geometry] if geometry else read_geometry(weights, training.backbone)
    if classes is not None and classes < 1:
        raise UserError(f"--classes is {classes}: expected at least one identity")
    index = Results.of(config).index("train")
    if classes is None:
        if not index.exists():
            raise UserError(f"{index} does not exist: run `reid index`, or give --classes")
        classes = len(identities_of(part(read_split(index), training.validation, "train")))
    cameras = cameras_of(config.dataset.layout, index)
    print(
        f"training {name}: backbone {geometry or weights} "
        f"(width {sizes.width}, {sizes.depth} blocks, patch {sizes.patch}), "
        f"{classes} identities, {cameras} cameras"
    )
    for stage, groups in stage_groups(training, sizes, classes, cameras).items():
        print(f"\n{stage}\n{describe(groups)}")


def stage_groups(
    training: Training, sizes: Geometry, classes: int, cameras: int
) -> dict[str, list[Group]]:
    """The groups of each stage, trained ones first: none in a stage of no epochs.

    Nothing of the network is allocated.
    """
    first = training.stage1
    with torch.device("meta"):
        model = build_model(training, sizes, identities=classes, cameras=cameras, seed=0)
        tower = TextTower(sizes)
        contexts = IdentityContexts(classes, torch.empty(sizes.vocabulary, sizes.text_width))
    trained = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    if not training.stage2.epochs:
        trained = []
    learned = dict(contexts.named_parameters())
    rates = (first.lr, first.weight_decay) if first.epochs else (0.0, 0.0)
    return {
        "stage 1": [
            Group("contexts", learned, *rates),
            Group("text tower", dict(tower.named_parameters()), 0.0, 0.0),
        ],
        "stage 2": [*trained, *frozen_groups(model, trained)],
    }

"""What trains in stage 2, with which learning rate and weight decay: one explicit table.

Groups are made from module objects, never from substrings of names: the released code lost its
prompts and pools that way (MODEL headlines 2 and 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from reid.config import FineTune, Stage2
from reid.errors import UserError
from reid.model.network import VideoReID

Parameters = Mapping[str, nn.Parameter]
"""By their names in the model."""


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and weight decay."""

    name: str
    parameters: Parameters
    lr: float
    """Zero if the group is frozen."""
    weight_decay: float

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def trainable_groups(model: VideoReID, *, finetune: FineTune, stage2: Stage2) -> list[Group]:
    """Freeze the model but for what stage 2 trains, and return that as optimizer groups.

    Adapters, prompts, pools, necks and heads train at the base rate, their biases at
    `bias_lr_multiplier` times it; the last `finetune.blocks` blocks at `lr_multiplier` times it.
    Raises UserError when there are fewer blocks than that.
    """
    depth = len(model.visual.blocks)
    if finetune.blocks > depth:
        raise UserError(
            f"finetune.blocks is {finetune.blocks} but the backbone has only {depth} blocks"
        )
    parts = _parts(model, unfrozen=finetune.blocks)
    del parts["tower"]
    # Before anything is frozen: prompts, pools and BN biases say themselves if they train
    # (`prompts.train`, `pooling.train`, `neck.train_bias`).
    learned = {name for name, p in model.named_parameters() if p.requires_grad} | {*parts["blocks"]}
    model.requires_grad_(False)
    groups = []
    for part, parameters in parts.items():
        label, rate, of_bias = part, stage2.lr, stage2.bias_lr_multiplier
        if part == "blocks":
            label, of_bias = f"blocks {depth - finetune.blocks}-{depth - 1}", 1.0
            rate *= finetune.lr_multiplier
        chosen = {name: p for name, p in parameters.items() if name in learned}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        biases = {name: p for name, p in chosen.items() if "bias" in name}
        weights = {name: p for name, p in chosen.items() if "bias" not in name}
        groups += [
            Group(label, weights, rate, stage2.weight_decay),
            Group(f"{label} (bias)", biases, rate * of_bias, stage2.bias_weight_decay),
        ]
    return [group for group in groups if group.parameters]


def frozen_groups(model: VideoReID, groups: Sequence[Group]) -> list[Group]:
    """Everything in the model that is in none of `groups`; "(rest)" of a part that trains."""
    labels = {group.name for group in groups}
    trained = {name for group in groups for name in group.parameters}
    parts = {
        part: {name: p for name, p in parameters.items() if name not in trained}
        for part, parameters in _parts(model, unfrozen=0).items()
    }
    return [
        Group(f"{part} (rest)" if part in labels else part, parameters, 0.0, 0.0)
        for part, parameters in parts.items()
        if parameters
    ]


def describe(groups: Sequence[Group]) -> str:
    """The table of groups, for people."""
    lines = [
        f"{'group':<24} {'tensors':>7} {'parameters':>12} {'trainable':>9} {'lr':>9} {'decay':>9}"
    ]
    for group in groups:
        line = f"{group.name:<24} {len(group.parameters):>7} {group.size:>12,}"
        rates = f"{group.lr:>9.2e} {group.weight_decay:>9.2e}"
        lines.append(f"{line} {'yes':>9} {rates}" if group.lr else f"{line} {'no':>9}")
    for label, some in (("trainable", [g for g in groups if g.lr]), ("all", groups)):
        tensors = sum(len(group.parameters) for group in some)
        lines.append(f"{label:<24} {tensors:>7} {sum(group.size for group in some):>12,}")
    return "\n".join(lines)


def _parts(model: VideoReID, *, unfrozen: int) -> dict[str, dict[str, nn.Parameter]]:
    """Every parameter of the model, in one part each; `blocks` are the last `unfrozen` ones."""
    blocks = model.visual.blocks
    adapters = [
        adapter for block in blocks for adapter in (block.spatial, block.temporal) if adapter
    ]
    cameras = [model.prompts.camera] if model.prompts and model.prompts.camera is not None else []
    found: dict[str, list[nn.Parameter]] = {
        "adapters": _parameters(adapters),
        "camera prompts": cameras,
        "metadata prompts": _parameters([model.prompts] if model.prompts else []),
        "pools": _parameters([model.pool, model.pool_proj]),
        "necks": _parameters([model.head.norm, model.head_proj.norm]),
        "heads": _parameters([model.head, model.head_proj]),
        "blocks": _parameters(blocks[len(blocks) - unfrozen :]),
        "tower": _parameters([model.visual]),
    }
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    # Each parameter belongs to the first part that has it.
    return {
        part: {names.pop(id(p)): p for p in parameters if id(p) in names}
        for part, parameters in found.items()
    }


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]

"""What trains in stage 2, with which learning rate and weight decay: one explicit table.

Groups are made from module objects, never from substrings of names: the released code lost its
prompts and pools that way (MODEL headlines 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from reid.config import FineTune, Stage2
from reid.errors import UserError
from reid.model.network import VideoReID


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and weight decay."""

    name: str
    parameters: dict[str, nn.Parameter]
    """By their names in the model."""
    lr: float
    weight_decay: float

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def trainable_groups(model: VideoReID, *, finetune: FineTune, stage2: Stage2) -> list[Group]:
    """Freeze the model but for what stage 2 trains, and return that as optimiser groups.

    Adapters, prompts, pools and heads train at the base rate, their biases at
    `bias_lr_multiplier` times it; the last `finetune.blocks` blocks at `lr_multiplier` times it.
    """
    blocks = model.visual.blocks
    if finetune.blocks > len(blocks):
        raise UserError(
            f"finetune.blocks is {finetune.blocks} but the backbone has only {len(blocks)} blocks"
        )
    adapters = [
        adapter for block in blocks for adapter in (block.spatial, block.temporal) if adapter
    ]
    # Before anything is frozen: a BN bias that does not train says so itself (neck.train_bias).
    heads = [p for head in (model.head, model.head_proj) for p in head.parameters()]
    head_parameters = [p for p in heads if p.requires_grad]
    adapter_parameters = _parameters(adapters)
    unfrozen = blocks[len(blocks) - finetune.blocks :]
    own = {id(parameter) for parameter in adapter_parameters}
    parts: dict[str, tuple[list[nn.Parameter], float]] = {
        "adapters": (adapter_parameters, 1.0),
        "prompts": (_parameters([model.prompts] if model.prompts else []), 1.0),
        "pools": (_parameters([model.pool, model.pool_proj]), 1.0),
        "heads": (head_parameters, 1.0),
        "blocks": (
            [p for p in _parameters(unfrozen) if id(p) not in own],
            finetune.lr_multiplier,
        ),
    }
    model.requires_grad_(False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = []
    for part, (parameters, multiplier) in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(True)
        named = {names[id(parameter)]: parameter for parameter in parameters}
        biases = {name: p for name, p in named.items() if "bias" in name}
        weights = {name: p for name, p in named.items() if name not in biases}
        bias_multiplier = 1.0 if part == "blocks" else stage2.bias_lr_multiplier
        groups += [
            Group(part, weights, stage2.lr * multiplier, stage2.weight_decay),
            Group(
                f"{part} (bias)",
                biases,
                stage2.lr * multiplier * bias_multiplier,
                stage2.bias_weight_decay,
            ),
        ]
    return [group for group in groups if group.parameters]


def describe(groups: Sequence[Group]) -> str:
    """The table of groups, for people."""
    lines = [f"{'group':<16} {'tensors':>7} {'parameters':>12} {'lr':>9} {'decay':>9}"]
    lines += [
        f"{group.name:<16} {len(group.parameters):>7} {group.size:>12,} "
        f"{group.lr:>9.2e} {group.weight_decay:>9.2e}"
        for group in groups
    ]
    total = sum(group.size for group in groups)
    lines.append(f"{'all':<16} {sum(len(g.parameters) for g in groups):>7} {total:>12,}")
    return "\n".join(lines)


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]

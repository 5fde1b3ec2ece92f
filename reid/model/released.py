"""Checkpoints of the released code (VSLA-CLIP, VReID-XFD) in our network.

Their names follow MODEL sections 2 and 4: `image_encoder.*` is CLIP's tower with both adapters
(`dat`, `dat_cross`), `cv_embed` (K, P, cameras, d) the prompts, `temporal_attn*` the pools,
`bottleneck*` and `classifier*` necks and heads, `prompt_learner.*` and `text_encoder.*` the text
side, which is frozen in stage 2 and no part of `VideoReID`.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from reid.errors import UserError

_BLOCK = r"image_encoder\.(transformer\.resblocks\.\d+)"
_RENAMED = {
    rf"{_BLOCK}\.dat\.(down|up)\.": r"visual.\1.spatial.\2.",
    rf"{_BLOCK}\.dat_cross\.(down|up)\.": r"visual.\1.temporal.\2.",
    rf"{_BLOCK}\.dat_cross\.temporal_block\.temporal_attn\.": r"visual.\1.temporal.attn.",
    r"image_encoder\.": "visual.",
    r"cv_embed$": "prompts.camera",
    r"temporal_attn(_proj|)\.fc\.weight$": r"pool\1.score.weight",
    r"bottleneck(_proj|)\.": r"head\1.norm.",
    r"classifier(_proj|)\.": r"head\1.classifier.",
}
"""Beginnings of their names, and of ours; the first that matches counts."""
_TEXT_SIDE = ("prompt_learner.", "text_encoder.")
_WITHOUT_EFFECT = ("temporal_attn.fc.bias", "temporal_attn_proj.fc.bias")
"""Added to the score of every frame of a tracklet: softmax over the frames cancels it."""
_COUNTER = ".num_batches_tracked"
"""Of a batch norm; not read when its momentum is fixed."""


def load_reference_checkpoint(
    state_dict: Mapping[str, Tensor], model: nn.Module, *, allow: Collection[str] = ()
) -> dict[str, str]:
    """Load a checkpoint of the released code, in its names, into `model`, in place.

    `module.` prefixes are stripped. When it has prompts of more cameras than the model, those of
    the first cameras are taken (the released code allocates 38 and uses 0, 1 and 2). `allow`:
    names or patterns (`classifier*`) of tensors, theirs or ours, that may be left over, missing
    or of another shape. Afterwards `embed` in eval mode is the released model's output.

    Returns what became of every tensor, by their name or, where it is missing, ours: "used as"
    our name, "text side", "no effect", "left over", "missing".
    Raises UserError, and leaves the model as it was, when a tensor that is not allowed is left
    over, missing, misshapen or not finite.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    own: dict[str, Tensor] = model.state_dict()
    fates, used, dropped, problems = {}, {}, set(), []

    def allowed(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in allow)

    for theirs, tensor in given.items():
        ours = _our_name(theirs)
        cut = (
            _of_first_cameras(tensor, own[ours]) if theirs == "cv_embed" and ours in own else tensor
        )
        if theirs.startswith(_TEXT_SIDE):
            fates[theirs] = "text side"
        elif theirs in _WITHOUT_EFFECT:
            fates[theirs] = "no effect"
        elif (problem := _problem(theirs, cut, ours, own)) is None:
            used[ours] = cut
            fates[theirs] = f"used as {ours}"
            if cut is not tensor:
                fates[theirs] += f", the first {cut.shape[2]} cameras of {tensor.shape[2]}"
        elif allowed(theirs, ours):
            fates[theirs] = "left over"
            dropped.add(ours)
        else:
            problems.append(problem)
    for ours in sorted(own.keys() - used.keys()):
        if not ours.endswith(_COUNTER):
            fates[ours] = "missing"
            problems += [] if ours in dropped or allowed(ours) else [f"missing {ours}"]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"the checkpoint does not fit the network: {'; '.join(problems[:5])}{more}. Choose a "
            "training with its options (released.yaml has those of the released code), or allow "
            "tensors by name"
        )
    model.load_state_dict(used, strict=False)
    return fates


def describe_import(fates: Mapping[str, str]) -> str:
    """What became of every tensor, one a line, and how many were of each kind."""
    kinds = Counter(fate.partition(" as ")[0] for fate in fates.values())
    lines = [f"{name}: {fate}" for name, fate in fates.items()]
    return "\n".join([*lines, ", ".join(f"{count} {kind}" for kind, count in kinds.items())])


def _of_first_cameras(theirs: Tensor, ours: Tensor) -> Tensor:
    """Prompts (K, P, cameras, d) of as many cameras as ours, where there are more."""
    if theirs.dim() == 4 and theirs.shape[2] > ours.shape[2]:
        return theirs[:, :, : ours.shape[2]]
    return theirs


def _our_name(theirs: str) -> str:
    """Their name itself when it is of no known part."""
    for pattern, ours in _RENAMED.items():
        if re.match(pattern, theirs):
            return re.sub(pattern, ours, theirs, count=1)
    return theirs


def _problem(theirs: str, tensor: Tensor, ours: str, own: Mapping[str, Tensor]) -> str | None:
    """Why a tensor of theirs cannot be loaded."""
    if ours == theirs or ours not in own:
        return f"left over {theirs}"
    if tensor.shape != own[ours].shape:
        shapes = tuple(tensor.shape), tuple(own[ours].shape)
        return f"{theirs} has shape {shapes[0]}, our {ours} {shapes[1]}"
    return None if tensor.isfinite().all() else f"{theirs} has numbers that are not finite"

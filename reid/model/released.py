"""Checkpoints of the released code (VSLA-CLIP, VReID-XFD) in our network.

Their names follow MODEL sections 2 and 4: `image_encoder.*` is CLIP's tower with both adapters
(`dat`, `dat_cross`), `cv_embed` (K, P, cameras, d) the prompts, `temporal_attn*` the pools,
`bottleneck*` and `classifier*` necks and heads, `prompt_learner.*` and `text_encoder.*` the text
side, which is frozen in stage 2 and no part of `VideoReID`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
"""Of a batch norm; read by nothing when its momentum is fixed."""


@dataclass(frozen=True)
class ImportReport:
    """What became of every tensor."""

    used: Mapping[str, str]
    """Their name to ours."""
    text: tuple[str, ...]
    """Theirs, of the text side."""
    without_effect: tuple[str, ...]
    """Theirs, left out because no output depends on them."""
    missing: tuple[str, ...]
    """Ours that the checkpoint does not have; they were allowed and keep their values."""
    left_over: tuple[str, ...]
    """Theirs that our network does not have; they were allowed and are dropped."""
    cameras: tuple[int, int] | None
    """How many cameras' prompts were taken, the first ones, and how many there are."""

    def __str__(self) -> str:
        """One line a tensor, and a summary."""
        lines = [f"used       {theirs} -> {ours}" for theirs, ours in self.used.items()]
        lines += [f"text side  {name}" for name in self.text]
        lines += [f"no effect  {name}" for name in self.without_effect]
        lines += [f"missing    {name} (allowed)" for name in self.missing]
        lines += [f"left over  {name} (allowed)" for name in self.left_over]
        if self.cameras is not None and self.cameras[0] < self.cameras[1]:
            taken, there = self.cameras
            lines.append(f"of the prompts of {there} cameras, those of the first {taken} are used")
        lines.append(
            f"{len(self.used)} tensors used, {len(self.text)} of the text side, "
            f"{len(self.without_effect)} without effect, {len(self.missing)} missing, "
            f"{len(self.left_over)} left over"
        )
        return "\n".join(lines)


def load_reference_checkpoint(
    state_dict: Mapping[str, Tensor], model: nn.Module, *, allow: Collection[str] = ()
) -> ImportReport:
    """Load a checkpoint of the released code, in its names, into `model`, in place.

    `module.` prefixes are stripped. When it has prompts of more cameras than the model, those of
    the first cameras are taken (the released code allocates 38 and uses 0, 1 and 2). `allow`:
    names or patterns (`classifier*`) of tensors, theirs or ours, that may be left over, missing
    or of another shape. Afterwards `embed` in eval mode is the released model's output.

    Raises UserError, and leaves the model as it was, when another tensor is left over, missing,
    misshapen or not finite.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    own: dict[str, Tensor] = model.state_dict()
    text = tuple(name for name in given if name.startswith(_TEXT_SIDE))
    without_effect = tuple(name for name in given if name in _WITHOUT_EFFECT)
    cameras = _use_first_cameras(given, own)

    def allowed(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in allow)

    used, left_over, dropped, problems = {}, [], set(), []
    for theirs in [name for name in given if name not in {*text, *without_effect}]:
        ours = _our_name(theirs)
        problem = _problem(theirs, given[theirs], ours, own)
        if problem is None:
            used[theirs] = ours
            continue
        left_over.append(theirs)
        if allowed(theirs, ours):
            dropped.add(ours)
        else:
            problems.append(problem)
    missing = sorted(own.keys() - used.values())
    missing = [name for name in missing if not name.endswith(_COUNTER)]
    problems += [f"missing {name}" for name in missing if name not in dropped and not allowed(name)]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"the checkpoint does not fit the network: {'; '.join(problems[:5])}{more}. Choose a "
            "training with its options (released.yaml has those of the released code), or allow "
            "tensors by name"
        )
    model.load_state_dict({ours: given[theirs] for theirs, ours in used.items()}, strict=False)
    return ImportReport(used, text, without_effect, tuple(missing), tuple(left_over), cameras)


def _use_first_cameras(
    given: dict[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    """Cut the prompts in `given` to the model's cameras: how many are taken, of how many."""
    theirs, ours = given.get("cv_embed"), own.get("prompts.camera")
    if theirs is None or ours is None or theirs.dim() != 4 or ours.shape[2] > theirs.shape[2]:
        return None
    given["cv_embed"] = theirs[:, :, : ours.shape[2]]
    return ours.shape[2], theirs.shape[2]


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

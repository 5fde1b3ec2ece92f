"""What both stages and extraction set up alike: the device, the tracklets, the saved files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reid.config import Clip, ColorJitter, Dataset, Runtime
from reid.data.dataset import TrackletDataset
from reid.data.layout import Tracklet
from reid.data.staging import pack_for
from reid.data.stored import check_fresh, read_split
from reid.errors import UserError
from reid.files import replacing


def pick_device(choice: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises UserError when a named GPU is not there."""
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device is cuda but torch sees no GPU here: use auto or cpu")
    return torch.device(choice)


def tracklets_of(root: Path, index: Path, *, pack: Path | None = None) -> tuple[Tracklet, ...]:
    """Tracklets of an index file, after a check against the folders they were read from.

    With a pack those folders need not be there: it is checked against the index when opened.
    """
    if pack is None:
        check_fresh(root, index)
    return read_split(index)


def clips_of(
    tracklets: Sequence[Tracklet],
    dataset: Dataset,
    runtime: Runtime,
    *,
    clip: Clip,
    train: bool,
    seed: int = 0,
    color_jitter: ColorJitter | None = None,
) -> TrackletDataset:
    """Clips of tracklets, read the way the dataset and runtime options say."""
    return TrackletDataset(
        tracklets,
        dataset.root,
        clip=clip,
        train=train,
        seed=derive_seed(seed, "frames"),
        metadata=dataset.metadata,
        pack=pack_for(runtime),
        decoder=runtime.decoder,
        color_jitter=color_jitter,
    )


def identities_of(tracklets: Sequence[Tracklet]) -> list[int]:
    """Identity ids, sorted: their positions are the dense labels of training."""
    return sorted({tracklet.identity for tracklet in tracklets})


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for one purpose: independent streams from one configured seed."""
    text = json.dumps([seed, *words]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write tensors and JSON-able facts as one safetensors file, atomically.

    The facts are one entry, because safetensors writes several in random order: equal content
    must give equal bytes.
    """
    metadata = {"facts": json.dumps(facts, sort_keys=True)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
        except SafetensorError as error:  # it hides the number of an I/O error in its words
            raise OSError(str(error)) from None


def load_tensors(path: Path, *, made_by: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read what `save_tensors` wrote. Raises UserError when it is missing or damaged.

    `made_by` is the command that writes it, for those errors.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("facts", "{}"))
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `{made_by}`") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run `{made_by}` again"
        ) from None


def require_equal(path: Path, facts: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Check that a file was made from what is configured now. Raises UserError naming the facts."""
    for name, value in expected.items():
        found = facts.get(name)
        if found != value:
            raise UserError(
                f"{path} was made with {name} {_short(found)}, but this run has {_short(value)}: "
                "run the step that makes it again"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""What both stages and extraction share: device and precision, tracklets, files of tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reid.config import Clip, ColorJitter, Config, Dataset, Runtime, Training
from reid.data.dataset import TrackletDataset
from reid.data.holdout import part
from reid.data.packed import pack_for
from reid.data.stored import check_fresh, read_split
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.files import demand_regular, replacing
from reid.model import network
from reid.model.network import VideoReID
from reid.model.vit import Geometry
from reid.model.weights import Weights
from reid.paths import Results

Precision = Literal["fp32", "bf16", "fp16"]


def pick_device(choice: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises UserError when a named GPU is not there."""
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device is cuda but torch sees no GPU here: use auto or cpu")
    return torch.device(choice)


def pick_precision(choice: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """`auto` is bf16 on a GPU that has it, else fp32."""
    if choice != "auto":
        return choice
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for a forward pass."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def tracklets_of(root: Path, index: Path, *, pack: Path | None = None) -> tuple[Tracklet, ...]:
    """Tracklets of an index file, after a check against the folders they were read from.

    With a pack those folders may be missing: the pack is checked against the index when opened.
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
        color_jitter=color_jitter,
    )


def training_clips(
    config: Config, name: str, seed: int, color_jitter: ColorJitter | None
) -> TrackletDataset:
    """Clips of the tracklets that the training `name` trains on: not those it holds out."""
    training = config.trainings[name]
    index = Results.of(config).index("train")
    tracklets = tracklets_of(config.dataset.root, index, pack=config.runtime.pack)
    return clips_of(
        part(tracklets, training.validation, "train"),
        config.dataset,
        config.runtime,
        clip=training.clip,
        train=True,
        seed=seed,
        color_jitter=color_jitter,
    )


def identities_of(tracklets: Sequence[Tracklet]) -> list[int]:
    """Identity ids, sorted: their positions are the dense labels of training."""
    return sorted({tracklet.identity for tracklet in tracklets})


def build_model(
    training: Training, weights: Weights | Geometry, *, identities: int, cameras: int, seed: int
) -> VideoReID:
    """The network of a training; what is new in it starts from `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "stage 2"))
        return network.build(
            training.model,
            num_classes=identities,
            num_cameras=cameras,
            weights=weights,
            image_size=(training.clip.height, training.clip.width),
        )


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
        except SafetensorError as error:  # it has the number of an I/O error in its text only
            raise OSError(str(error)) from None


_FACTS = TypeAdapter(dict[str, object])


def load_tensors(path: Path, *, made_by: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read what `save_tensors` wrote. Raises UserError when it is missing or damaged.

    `made_by` is the command that writes it, for those errors.
    """
    try:
        demand_regular(path)
        with safe_open(path, framework="pt") as file:
            facts = _FACTS.validate_json((file.metadata() or {}).get("facts", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run `{made_by}`") from None
    except (SafetensorError, OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is damaged ({reason}): delete it and run `{made_by}` again"
        ) from None


def require_equal(path: Path, facts: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Check that a file was made from what is configured now. Raises UserError naming the facts."""
    for name, value in expected.items():
        if facts.get(name) != value:
            made, wanted = json.dumps(facts.get(name)), json.dumps(value)
            raise UserError(
                f"{path} was made with {name} {made[:60]}, but this run has {wanted[:60]}: "
                "run the step that makes it again"
            )

"""Features of a protocol's tracklets by a trained model, with flip test-time augmentation."""

from pathlib import Path

import torch

from reid.artifacts import Results
from reid.config import Config, Training
from reid.data.dataset import Batch
from reid.data.layout import Tracklet
from reid.data.loading import loader, naming_dead_processes
from reid.data.normalize import normalize
from reid.data.sampler import sequential_batches
from reid.data.stored import count_cameras
from reid.errors import UserError
from reid.holdout import VALIDATION, part
from reid.model import network
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.weights import load as load_weights
from reid.progress import Progress
from reid.train.common import (
    clips_of,
    load_tensors,
    pick_device,
    require_equal,
    save_tensors,
    tracklets_of,
)
from reid.train.engine import autocast, pick_precision
from reid.train.stage2 import trained_tensors


@naming_dead_processes()
def run(config: Config, name: str, seed: int, protocol: str) -> None:
    """Extract the query and gallery features of a protocol with the training `name`.

    The protocol `validation` stands for the tracklets of the identities that it holds out.
    Writes `features` (n, D), raw and in the order of the protocol's index, and `flipped`, those
    of the mirrored clips, when a variant of this training averages both (Sec. 3.2.5); `heights`
    (n,) is the median pixel height of the crops that were looked at; `frame_weights` (n, 2, T),
    of a training with temporal attention, are the alpha_t of both pools (Eq. 3).
    """
    training = config.trainings[name]
    results = Results.of(config.dataset.name)
    split = "train" if protocol == VALIDATION else protocol
    tracklets = tracklets_of(config.dataset.root, results.index(split), pack=config.runtime.pack)
    if protocol == VALIDATION:
        tracklets = held_out(tracklets, training, name)
    prompts = training.model.prompts
    if config.dataset.metadata and prompts.length and prompts.metadata:
        warn_about_metadata(tracklets, protocol)
    device = pick_device(config.runtime.device)
    model = load_trained(config, name, seed).to(device).eval()
    cameras = count_cameras(results.index(split))
    if cameras != model.num_cameras:
        raise UserError(
            f"{name} was trained for {model.num_cameras} cameras, {results.index(split)} has "
            f"{cameras}: train again"
        )
    dataset = clips_of(
        tracklets,
        config.dataset,
        config.runtime,
        clip=training.clip,
        train=False,
    )
    views = {"features": False}
    if flips(config, name):
        views["flipped"] = True
    parts: dict[str, list[torch.Tensor]] = {view: [] for view in views}
    heights: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    batches = sequential_batches(len(dataset), batch_size=config.runtime.extract_batch)
    progress = Progress(f"features of {name} on {protocol}", len(dataset), "tracklets")
    precision = pick_precision(config.runtime.precision, device)
    with torch.inference_mode(), autocast(device, precision):
        for batch in loader(dataset, batches, workers=config.runtime.workers):
            on_device = batch.to(device)
            for view, mirrored in views.items():
                found, alpha = weigh(model, on_device, mirrored=mirrored)
                parts[view].append(found.cpu())
                if not mirrored:
                    weights.append(alpha.cpu())
            heights.append(batch.heights.median(dim=1).values)
            progress.advance(len(batch.index))
    features = {view: torch.cat(rows) for view, rows in parts.items()}
    for view, rows in features.items():
        if not rows.isfinite().all():
            bad = tracklets[int((~rows.isfinite()).any(dim=1).nonzero()[0])]
            raise UserError(
                f"{view} of {bad.path} are not finite: the weights of {name} are unusable"
            )
    measured = {"heights": torch.cat(heights)}
    if training.model.pooling.kind == "attention":
        measured["frame_weights"] = torch.cat(weights)
    save_tensors(
        results.features(name, seed, protocol),
        {**features, **measured},
        {"training": name, "seed": seed, "protocol": protocol, "precision": precision},
    )


def held_out(
    tracklets: tuple[Tracklet, ...], training: Training, name: str
) -> tuple[Tracklet, ...]:
    """Tracklets of the identities a training holds out. Raises UserError when it holds out none."""
    if training.validation.share == 0:
        raise UserError(
            f"trainings.{name}.validation.share is 0: no identities are held out to tune on; "
            "set it and train again"
        )
    return part(tracklets, training.validation, VALIDATION)


def embed(model: VideoReID, batch: Batch, *, mirrored: bool) -> torch.Tensor:
    """Raw features (B, D) of a batch, or of its mirror image."""
    return weigh(model, batch, mirrored=mirrored)[0]


def weigh(model: VideoReID, batch: Batch, *, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """As `embed`, and the frame weights (B, 2, T) of both pools."""
    frames = normalize(batch.frames.flip(-1) if mirrored else batch.frames)
    features, weights = model.embed_with_weights(
        frames, batch.camera, batch.metadata, batch.heights
    )
    return features.float(), weights.float()


def flips(config: Config, training: str) -> bool:
    """Whether any variant of this training averages the features of mirrored clips."""
    return any(v.flip_tta for v in config.variants.values() if v.training == training)


def load_trained(config: Config, name: str, seed: int) -> VideoReID:
    """The network of a training with its trained tensors on top of the frozen backbone.

    Raises UserError when the backbone or the model options are not those it was trained with.
    """
    training = config.trainings[name]
    path = Results.of(config.dataset.name).stage(name, seed, 2)
    return restore(path, training, config.backbones[training.backbone].weights, seed=seed)


def restore(path: Path, training: Training, backbone: str, *, seed: int) -> VideoReID:
    """As `load_trained`, from a stage-2 file and the `weights` of its backbone."""
    trained, facts = load_tensors(path, made_by="reid train stage2")
    weights = load_weights(backbone)
    expected = {
        "backbone": weights.sha256,
        "seed": seed,
        "model": training.model.model_dump(mode="json"),
    }
    require_equal(path, facts, expected)
    identities, cameras = facts["identities"], facts.get("cameras")
    assert isinstance(identities, list)
    if not isinstance(cameras, int):
        raise UserError(f"{path} does not tell how many cameras it knows: train again")
    model = network.build(
        training.model,
        num_classes=len(identities),
        num_cameras=cameras,
        weights=weights,
        image_size=(training.clip.height, training.clip.width),
    )
    # Marks what trains, and so what the file must hold: no tensor more, none less. An imported
    # checkpoint may bring its own tower.
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    tower = facts.get("tower", [])
    assert isinstance(tower, list)
    wrong = sorted(trained.keys() ^ {*trained_tensors(model), *tower})
    if wrong:
        raise UserError(
            f"{path} lacks or has too many tensors ({', '.join(wrong[:5])}): train again"
        )
    model.load_state_dict(trained, strict=False)
    return model


def warn_about_metadata(tracklets: tuple[Tracklet, ...], protocol: str) -> None:
    """Say loudly that a training knows metadata which this split lacks."""
    aerial = [tracklet for tracklet in tracklets if tracklet.view == "aerial"]
    bare = sum(tracklet.altitude != tracklet.altitude for tracklet in aerial)
    if bare:
        print(
            f"warning: {bare} of {len(aerial)} aerial tracklets of {protocol} have no altitude, "
            "distance and angle, but this training uses them: set dataset.metadata to false to "
            "compare without them everywhere",
            flush=True,
        )

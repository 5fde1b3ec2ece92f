"""Features of a protocol's tracklets by a trained model, with flip test-time augmentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from reid.chain import Chain
from reid.config import Config, Training
from reid.data.augment import normalize
from reid.data.dataset import Batch, TrackletDataset
from reid.data.holdout import VALIDATION, held_out
from reid.data.loading import loader, naming_dead_processes
from reid.data.sampler import sequential_batches
from reid.data.stored import count_cameras
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from reid.model import network
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.weights import Weights, load_backbone
from reid.progress import Progress
from reid.train.common import (
    autocast,
    clips_of,
    load_tensors,
    pick_device,
    pick_precision,
    require_equal,
    save_tensors,
    tracklets_of,
)
from reid.train.stage2 import trained_tensors


@naming_dead_processes()
def run(config: Config, name: str, seed: int, protocol: str) -> None:
    """Write the features file (`reid.features.features`) of a protocol by the training `name`.

    The protocol `validation` stands for the tracklets of the identities that it holds out.
    """
    training, chain = config.trainings[name], Chain(config)
    job = chain.steps.extract(name, seed, protocol)
    device = pick_device(config.runtime.device)
    precision = pick_precision(config.runtime.precision, device)
    with chain.record(job, device=str(device), precision=precision):
        index = job.inputs["index"]
        tracklets = tracklets_of(config.dataset.root, index, pack=config.runtime.pack)
        if protocol == VALIDATION:
            tracklets = held_out(tracklets, training.validation, name)
        prompts = training.model.prompts
        if config.dataset.metadata and prompts.length and prompts.metadata:
            warn_about_metadata(tracklets, protocol)
        weights = load_backbone(config.backbones, training.backbone)
        model = restore(job.inputs["stage2"], training, weights, seed=seed)
        cameras = count_cameras(index)
        if cameras != model.num_cameras:
            raise UserError(
                f"{name} was trained for {model.num_cameras} cameras, {index} has {cameras}: "
                "train again"
            )
        clips = clips_of(tracklets, config.dataset, config.runtime, clip=training.clip, train=False)
        with torch.inference_mode(), autocast(device, precision):
            tensors = embed_all(
                model.to(device).eval(),
                clips,
                device,
                flip=chain.steps.flips(name),
                batch_size=config.runtime.extract_batch,
                workers=config.runtime.workers,
                progress=Progress(f"features of {name} on {protocol}", len(clips), "tracklets"),
            )
        _demand_finite(tensors, tracklets, name)
        if training.model.pooling.kind != "attention":
            del tensors["frame_weights"]
        facts = {"training": name, "seed": seed, "protocol": protocol, "precision": precision}
        save_tensors(job.output, tensors, facts)


def _demand_finite(
    tensors: Mapping[str, torch.Tensor], tracklets: Sequence[Tracklet], name: str
) -> None:
    for view in tensors.keys() & {"features", "flipped"}:
        finite = tensors[view].isfinite().all(dim=1)
        if not finite.all():
            bad = tracklets[int(finite.logical_not().nonzero()[0])]
            raise UserError(
                f"{view} of {bad.path} are not finite: the weights of {name} are unusable"
            )


def embed_all(
    model: VideoReID,
    dataset: TrackletDataset,
    device: torch.device,
    *,
    flip: bool,
    batch_size: int,
    workers: int,
    progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of the features file, `flipped` with `flip`, of all tracklets in order."""
    parts: dict[str, list[torch.Tensor]] = {}
    batches = sequential_batches(len(dataset), batch_size=batch_size)
    for batch in loader(dataset, batches, workers=workers):
        rows = {"heights": batch.heights.median(dim=1).values}
        rows["features"], rows["frame_weights"] = _embed(model, batch.to(device), mirrored=False)
        if flip:
            rows["flipped"], _ = _embed(model, batch.to(device), mirrored=True)
        for key, value in rows.items():
            parts.setdefault(key, []).append(value.cpu())
        if progress is not None:
            progress.advance(len(batch.index))
    return {key: torch.cat(values) for key, values in parts.items()}


@torch.inference_mode()
def _embed(model: VideoReID, batch: Batch, *, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw features (B, D) of a batch, or of its mirror image, and frame weights (B, 2, T)."""
    frames = normalize(batch.frames.flip(-1) if mirrored else batch.frames)
    features, weights = model.embed_with_weights(
        frames, batch.camera, batch.metadata, batch.heights
    )
    return features.float(), weights.float()


def restore(path: Path, training: Training, weights: Weights, *, seed: int) -> VideoReID:
    """The trained network: the tensors of a stage-2 file on top of its frozen backbone.

    Raises UserError when the backbone or the model options
    are not those it was trained with.
    """
    trained, facts = load_tensors(path, made_by="reid train stage2")
    expected = {
        "backbone": weights.identity,
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
    # Marks what trains, and so which tensors the file must hold. An imported checkpoint may also
    # bring its own tower.
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
    """Print a warning when a training uses metadata that this split lacks."""
    aerial = [tracklet for tracklet in tracklets if tracklet.view == "aerial"]
    bare = sum(tracklet.altitude != tracklet.altitude for tracklet in aerial)
    if bare:
        print(
            f"warning: {bare} of {len(aerial)} aerial tracklets of {protocol} have no altitude, "
            "distance and angle, but this training uses them: set dataset.metadata to false to "
            "compare without them everywhere",
            flush=True,
        )

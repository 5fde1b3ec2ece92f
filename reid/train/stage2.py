"""Stage 2: adapt the visual side to the identities (paper Sec. 3.1-3.2; MODEL 4.6)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from reid.artefacts import Results
from reid.config import Config, Training
from reid.data.augment import augment
from reid.data.dataset import Batch, TrackletDataset, loader
from reid.data.layout import NUM_CAMERAS
from reid.data.sampler import Draw, pk_batches
from reid.model import network
from reid.model.finetune import describe, trainable_groups
from reid.model.network import VideoReID
from reid.model.weights import load as load_weights
from reid.train.common import (
    derive_seed,
    identities_of,
    load_tensors,
    pick_device,
    require_equal,
    save_tensors,
    tracklets_of,
)
from reid.train.engine import Outcome, Plan, fit
from reid.train.losses import stage2_loss


def run(config: Config, name: str, seed: int) -> None:
    """Train stage 2 of the training `name`; write `stage2.safetensors`.

    It holds what trained and the BN statistics; the frozen rest stays in the backbone's file,
    named there by its hash.
    """
    training = config.trainings[name]
    results = Results.of(config.dataset.name)
    tracklets = tracklets_of(config.dataset.root, results.index("train"))
    weights = load_weights(config.backbones[training.backbone].weights)
    stage1 = results.stage(name, seed, 1)
    learned, facts = load_tensors(stage1)
    identities = identities_of(tracklets)
    made = {"identities": identities, "backbone": weights.sha256, "seed": seed}
    require_equal(stage1, facts, made)
    device = pick_device(config.runtime.device)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "stage 2"))
        model = network.build(
            training.model,
            num_classes=len(identities),
            num_cameras=NUM_CAMERAS,
            weights=weights,
            image_size=(training.clip.height, training.clip.width),
        ).to(device)
    groups = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    print(describe(groups), flush=True)
    dataset = TrackletDataset(
        tracklets,
        config.dataset.root,
        clip=training.clip,
        train=True,
        seed=derive_seed(seed, "frames"),
        metadata=config.dataset.metadata,
    )
    options = training.stage2

    def batches(epoch: int) -> Sequence[Sequence[Draw]]:
        return pk_batches(
            dataset.labels,
            batch_size=options.batch_size,
            instances=options.instances,
            seed=derive_seed(seed, "stage 2 batches"),
            epoch=epoch,
        )

    def load(keys: Sequence[Sequence[Draw]]) -> Iterator[Batch]:
        for batch in loader(dataset, keys, workers=config.runtime.workers):
            yield batch.to(device)

    bank = learned["bank"].to(device)

    def loss(batch: Batch) -> Outcome:
        return batch_loss(model, bank, batch, training)

    model.train()
    plan = Plan(f"stage 2 of {name}", options.epochs, groups, options.schedule, batches, load, loss)
    fit(plan, journal=results.run(name, seed) / "stage2.jsonl")
    save_tensors(
        results.stage(name, seed, 2),
        trained_tensors(model),
        {**made, "model": training.model.model_dump(mode="json")},
    )


def batch_loss(model: VideoReID, bank: Tensor, batch: Batch, training: Training) -> Outcome:
    """Augment a batch, run the model on it, and return the weighted terms of Eq. 1."""
    clips = augment(batch.frames, options=training.augment, seeds=batch.seed)
    hidden = training.model.prompts.metadata_dropout
    metadata = hide_metadata(batch.metadata, hidden, batch.seed)
    features = model(clips, batch.camera, metadata, batch.heights)
    result = stage2_loss(
        features, model.classify(features), bank, batch.label, training.stage2.losses
    )
    return Outcome(result.terms, {"accuracy": result.accuracy})


def hide_metadata(metadata: Tensor, probability: float, seeds: Sequence[int]) -> Tensor:
    """Make the metadata of a random share of clips unknown, each by its own seed. (B, 3)."""
    draws = [np.random.default_rng([seed, 0x6D657461]).random() for seed in seeds]
    hidden = torch.tensor(draws, device=metadata.device) < probability
    return metadata.masked_fill(hidden[:, None], float("nan"))


def trained_tensors(model: VideoReID) -> dict[str, Tensor]:
    """What training changed: the trainable parameters and all buffers (BN statistics)."""
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    state: dict[str, Tensor] = model.state_dict()
    return {name: state[name] for name in state if name in trainable | buffers}

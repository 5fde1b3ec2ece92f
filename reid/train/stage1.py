"""Stage 1: learn a text context for every identity against frozen image features (MODEL 4.5)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid.artefacts import Results
from reid.config import Config, Stage1, Training
from reid.data.augment import augment, normalise
from reid.data.dataset import TrackletDataset, loader
from reid.data.layout import NUM_CAMERAS
from reid.data.sampler import pk_batches
from reid.errors import UserError
from reid.model import network, text
from reid.model.finetune import Group
from reid.model.text import IdentityContexts, TextTower
from reid.model.weights import Weights
from reid.model.weights import load as load_weights
from reid.progress import Progress
from reid.train.common import (
    derive_seed,
    identities_of,
    pick_device,
    save_tensors,
    tracklets_of,
)
from reid.train.engine import Outcome, Plan, fit
from reid.train.losses import contrastive


def run(config: Config, name: str, seed: int) -> None:
    """Train stage 1 of the training `name`; write `stage1.safetensors`.

    It holds the learned contexts and the text features of all identities, the bank of stage 2.
    """
    training = config.trainings[name]
    results = Results.of(config.dataset.name)
    tracklets = tracklets_of(config.dataset.root, results.index("train"))
    weights = load_weights(config.backbones[training.backbone].weights)
    device = pick_device(config.runtime.device)
    dataset = TrackletDataset(
        tracklets,
        config.dataset.root,
        clip=training.clip,
        train=True,
        seed=derive_seed(seed, "frames"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "stage 1"))
        tower, contexts = text.build(weights, classes=len(set(dataset.labels)))
    tower, contexts = tower.to(device), contexts.to(device)
    if training.stage1.epochs:
        images, labels = cache_images(
            dataset, training, weights, seed=seed, device=device, workers=config.runtime.workers
        )
        train_contexts(
            contexts,
            tower,
            images,
            labels,
            options=training.stage1,
            seed=derive_seed(seed, "stage 1 batches"),
            label=f"stage 1 of {name}",
            journal=results.run(name, seed) / "stage1.jsonl",
        )
    save_tensors(
        results.stage(name, seed, 1),
        {**contexts.state_dict(), "bank": text_bank(contexts, tower)},
        {
            "identities": identities_of(tracklets),
            "backbone": weights.sha256,
            "seed": seed,
            "options": training.stage1.model_dump(mode="json"),
        },
    )


def cache_images(
    dataset: TrackletDataset,
    training: Training,
    weights: Weights,
    *,
    seed: int,
    device: torch.device,
    workers: int,
) -> tuple[Tensor, Tensor]:
    """Plain-CLIP features of one view of the tracklets that one PK epoch draws.

    Returns features (M, e) and dense labels (M,). One augmented view each, or a clean one, as
    `stage1.view` says; computed once, because the image side never changes in this stage.
    """
    options = training.stage1
    clip = training.clip
    batches = pk_batches(
        dataset.labels,
        batch_size=options.batch_size,
        instances=options.instances,
        seed=derive_seed(seed, "stage 1 views"),
        epoch=0,
    )
    model = network.build(
        training.model,
        num_classes=1,
        num_cameras=NUM_CAMERAS,
        weights=weights,
        image_size=(clip.height, clip.width),
    )
    model.to(device).eval()
    features, labels = [], []
    progress = Progress("image features of stage 1", len(batches), "batches")
    with torch.inference_mode():
        for batch in loader(dataset, batches, workers=workers):
            frames = batch.frames.to(device)
            if options.view == "augmented":
                clips = augment(frames, options=training.augment, seeds=batch.seed)
            else:
                clips = normalise(frames)
            features.append(model.plain_clip(clips).float())
            labels.append(batch.label)
            progress.advance()
    # Out of inference mode: the loss of stage 1 needs ordinary tensors.
    return torch.cat(features).clone(), torch.cat(labels).to(device)


def train_contexts(
    contexts: IdentityContexts,
    tower: TextTower,
    images: Tensor,
    labels: Tensor,
    *,
    options: Stage1,
    seed: int,
    label: str,
    journal: Path,
) -> None:
    """Train `contexts` in place: SC(image, text) + SC(text, image) over random batches."""
    if len(images) < options.batch_size:
        raise UserError(
            f"stage1.batch_size is {options.batch_size} but there are only {len(images)} "
            "image features: lower it"
        )

    def batches(epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        order = torch.randperm(len(images), generator=generator)
        return list(torch.split(order, options.batch_size))[: len(images) // options.batch_size]

    def load(keys: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for key in keys:
            rows = key.to(images.device)
            yield images[rows], labels[rows]

    def loss(inputs: tuple[Tensor, Tensor]) -> Outcome:
        image, identity = inputs
        # An identity that occurs K times in the batch goes through the text tower once.
        present, places = torch.unique(identity, return_inverse=True)
        texts = tower(contexts(present))[places]
        return Outcome(
            terms={
                "image_to_text": contrastive(image, texts, identity),
                "text_to_image": contrastive(texts, image, identity),
            },
            watched={},
        )

    learned = Group("contexts", dict(contexts.named_parameters()), options.lr, options.weight_decay)
    plan = Plan(label, options.epochs, [learned], options.schedule, batches, load, loss)
    fit(plan, journal=journal)


def text_bank(contexts: IdentityContexts, tower: TextTower, rows: int = 256) -> Tensor:
    """Text features of all identities, (C, e)."""
    everyone = torch.arange(len(contexts.identity), device=contexts.identity.device)
    with torch.no_grad():
        return torch.cat([tower(contexts(some)) for some in torch.split(everyone, rows)])

"""Stage 1: learn a text context for every identity against frozen image features (MODEL 4.5)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid.chain import Chain
from reid.config import Config, Stage1, Training
from reid.data.augment import augment, normalize
from reid.data.dataset import TrackletDataset
from reid.data.loading import loader, naming_dead_processes
from reid.data.sampler import pk_batches
from reid.errors import UserError
from reid.model import text
from reid.model.param_groups import Group
from reid.model.text import IdentityContexts, TextTower
from reid.model.weights import Weights, load_backbone
from reid.progress import Progress
from reid.train.common import (
    build_model,
    derive_seed,
    identities_of,
    save_tensors,
    training_clips,
)
from reid.train.loop import Stage, fit
from reid.train.losses import BatchLoss, contrastive
from reid.train.session import Engine, Session


@naming_dead_processes()
def run(config: Config, name: str, seed: int, session: Session) -> None:
    """Train stage 1 of the training `name`; write `stage1.safetensors`.

    A training that shares its stage 1 with another one writes that one's file. It holds the
    learned contexts and the text features of all identities, the bank of stage 2.
    """
    chain = Chain(config)
    job = chain.steps.stage1(name, seed)
    with session.engine(chain, job, config.runtime) as engine:
        _train(config, name, seed, engine, job.output)


def _train(config: Config, name: str, seed: int, engine: Engine, output: Path) -> None:
    training = config.trainings[name]
    weights = load_backbone(config.backbones, training.backbone)
    augmented = training.stage1.view == "augmented"
    jitter = training.augment.color_jitter if augmented else None
    dataset = training_clips(config, name, seed, jitter)
    identities = identities_of(dataset.tracklets)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "stage 1"))
        tower, contexts = text.build(weights.tensors, weights.geometry, classes=len(identities))
    tower, contexts = tower.to(engine.device), contexts.to(engine.device)
    if training.stage1.epochs:
        images, labels = cache_images(dataset, training, weights, seed=seed, engine=engine)
        stage = context_stage(
            f"stage 1 of {name}",
            contexts,
            tower,
            images,
            labels,
            options=training.stage1,
            seed=derive_seed(seed, "stage 1 batches"),
        )
        fit(stage, engine, name="stage1")
    if engine.world.leads:
        save_tensors(
            output,
            {**contexts.state_dict(), "bank": text_bank(contexts, tower)},
            {"identities": identities, "backbone": weights.identity, "seed": seed},
        )


def cache_images(
    dataset: TrackletDataset,
    training: Training,
    weights: Weights,
    *,
    seed: int,
    engine: Engine,
) -> tuple[Tensor, Tensor]:
    """Plain-CLIP features of one view of the tracklets that one PK epoch draws.

    Returns features (M, e) and dense labels (M,). One augmented view each, or a clean one, as
    `stage1.view` says; computed once, because the image side never changes in this stage.
    """
    options = training.stage1
    batches = pk_batches(
        dataset.labels,
        stage="stage1",
        batch_size=options.batch_size,
        instances=options.instances,
        seed=derive_seed(seed, "stage 1 views"),
        epoch=0,
    )
    # Plain CLIP knows neither identities nor cameras.
    model = build_model(training, weights, identities=1, cameras=1, seed=seed)
    model.to(engine.device).eval()
    features, labels = [], []
    progress = Progress("image features of stage 1", len(batches), "batches")
    with torch.inference_mode():
        for batch in loader(dataset, batches, workers=engine.runtime.workers):
            engine.interrupt.check("stage 1, at its image features,")
            frames = batch.frames.to(engine.device)
            if options.view == "augmented":
                clips = augment(frames, options=training.augment, seeds=batch.seed)
            else:
                clips = normalize(frames)
            with engine.autocast():
                features.append(model.plain_clip(clips).float())
            labels.append(batch.label)
            progress.advance()
    # Out of inference mode: the loss of stage 1 needs ordinary tensors.
    return torch.cat(features).clone(), torch.cat(labels).to(engine.device)


def context_stage(
    label: str,
    contexts: IdentityContexts,
    tower: TextTower,
    images: Tensor,
    labels: Tensor,
    *,
    options: Stage1,
    seed: int,
) -> Stage[Tensor, tuple[Tensor, Tensor]]:
    """Training of `contexts`: SC(image, text) + SC(text, image) over random batches.

    images: (M, e), labels: (M,) dense; both stay as they are. Raises UserError when they are fewer
    than a batch.
    """
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

    def loss(inputs: tuple[Tensor, Tensor]) -> BatchLoss:
        image, identity = inputs
        # An identity that occurs K times in the batch goes through the text tower once.
        present, places = torch.unique(identity, return_inverse=True)
        texts = tower(contexts(present))[places]
        return BatchLoss(
            terms={
                "image_to_text": contrastive(image, texts, identity),
                "text_to_image": contrastive(texts, image, identity),
            }
        )

    learned = Group("contexts", dict(contexts.named_parameters()), options.lr, options.weight_decay)
    return Stage(
        label=label,
        epochs=options.epochs,
        groups=[learned],
        schedule=options.schedule,
        tensors=dict(contexts.named_parameters()),
        batches=batches,
        load=load,
        loss=loss,
        describe=lambda key: f"of image features {key.tolist()}",
        frames=0,
    )


def text_bank(contexts: IdentityContexts, tower: TextTower, rows: int = 256) -> Tensor:
    """Text features of all identities, (C, e)."""
    everyone = torch.arange(len(contexts.identity), device=contexts.identity.device)
    with torch.no_grad():
        return torch.cat([tower(contexts(some)) for some in torch.split(everyone, rows)])

"""Stage 2: adapt the visual side to the identities (paper Sec. 3.1-3.2; MODEL 4.6)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from reid.chain import Chain
from reid.config import Config, Runtime, Training
from reid.data.augment import augment
from reid.data.dataset import Batch, TrackletDataset
from reid.data.loading import loader, naming_dead_processes
from reid.data.sampler import Draw, pk_batches
from reid.data.stored import count_cameras
from reid.model.network import Features, VideoReID
from reid.model.param_groups import Group, describe, trainable_groups
from reid.model.weights import load_backbone
from reid.steps import Job
from reid.train import memory
from reid.train.common import (
    build_model,
    derive_seed,
    identities_of,
    load_tensors,
    require_equal,
    save_tensors,
    training_clips,
)
from reid.train.gradcache import embed_batch
from reid.train.loop import Stage, fit
from reid.train.losses import BatchLoss, stage2_loss
from reid.train.session import Engine, Session


@naming_dead_processes()
def run(config: Config, name: str, seed: int, session: Session) -> None:
    """Train stage 2 of the training `name`; write `stage2.safetensors` and its manifest.

    The weights hold what trained and the BN statistics; the frozen rest stays in the backbone's
    file, named there by its hash.
    """
    chain = Chain(config)
    job = chain.steps.stage2(name, seed)
    with session.engine(chain, job, config.runtime) as engine:
        _train(config, name, seed, engine, job)


def _train(config: Config, name: str, seed: int, engine: Engine, job: Job) -> None:
    training = config.trainings[name]
    index, stage1 = job.inputs["index"], job.inputs["stage1"]
    dataset = training_clips(config, name, seed, training.augment.color_jitter)
    weights = load_backbone(config.backbones, training.backbone)
    command = f"reid train stage1 --training {name} --seed {seed}"
    learned, made_from = load_tensors(stage1, made_by=command)
    identities = identities_of(dataset.tracklets)
    origin = {"identities": identities, "backbone": weights.identity, "seed": seed}
    require_equal(stage1, made_from, origin)
    cameras = count_cameras(index)
    model = build_model(training, weights, identities=len(identities), cameras=cameras, seed=seed)
    groups = trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    model.to(engine.device).train()
    prepare(model, config.runtime)
    if engine.device.type == "cuda":
        memory.check(model, training, engine, available=torch.cuda.mem_get_info(engine.device)[0])
    if engine.world.leads:
        print(describe(groups), flush=True)
    stage = visual_stage(
        f"stage 2 of {name}",
        model,
        learned["bank"].to(engine.device),
        dataset,
        groups,
        training=training,
        seed=derive_seed(seed, "stage 2 batches"),
        engine=engine,
    )
    fit(stage, engine, name="stage2")
    if engine.world.leads:
        save_tensors(
            job.output,
            trained_tensors(model),
            {**origin, "cameras": cameras, "model": training.model.model_dump(mode="json")},
        )


def prepare(model: VideoReID, runtime: Runtime) -> None:
    """Apply the runtime's memory and speed options."""
    model.visual.checkpointing = runtime.activation_checkpointing
    if runtime.compile:
        for block in model.visual.blocks:
            block.compile()


def visual_stage(
    label: str,
    model: VideoReID,
    bank: Tensor,
    dataset: TrackletDataset,
    groups: Sequence[Group],
    *,
    training: Training,
    seed: int,
    engine: Engine,
) -> Stage[list[Draw], Batch]:
    """Training of the visual side of `model` against the text features `bank` (C, e)."""
    options = training.stage2
    share = engine.world.share(options.batch_size)

    def batches(epoch: int) -> list[list[Draw]]:
        return pk_batches(
            dataset.labels,
            stage="stage2",
            batch_size=options.batch_size,
            instances=options.instances,
            seed=seed,
            epoch=epoch,
        )

    def load(keys: Sequence[list[Draw]]) -> Iterator[Batch]:
        shares = [key[share] for key in keys]
        for batch in loader(dataset, shares, workers=engine.runtime.workers):
            yield batch.to(engine.device)

    return Stage(
        label=label,
        epochs=options.epochs,
        groups=groups,
        schedule=options.schedule,
        tensors=trained_tensors(model),
        batches=batches,
        load=load,
        loss=lambda batch: batch_loss(model, bank, batch, training, engine=engine),
        describe=lambda key: str([dataset.tracklets[draw.index].name for draw in key]),
        frames=options.batch_size * training.clip.frames,
    )


def batch_loss(
    model: VideoReID, bank: Tensor, share: Batch, training: Training, *, engine: Engine
) -> BatchLoss:
    """Augment and embed a batch, `runtime.micro_batch` tracklets at a time; the terms of Eq. 1.

    share: the tracklets of the batch that this process embeds; the terms are on all of it.
    """
    clips = augment(share.frames, options=training.augment, seeds=share.seed)
    metadata = hide_metadata(share.metadata, training.model.prompts.metadata_dropout, share.seed)

    def embed(rows: slice) -> tuple[Tensor, ...]:
        with engine.autocast():
            features = model(clips[rows], share.camera[rows], metadata[rows], share.heights[rows])
        return features.last.float(), features.pooled.float(), features.proj.float()

    size = engine.runtime.micro_batch or len(clips)
    embedded, after_backward = embed_batch(
        embed,
        [slice(start, start + size) for start in range(0, len(clips), size)],
        world=engine.world,
        parameters=model.embedding_parameters(),
    )
    features = Features(*embedded)
    logits = model.classify(features)
    labels = engine.world.gather(share.label)
    loss = stage2_loss(features, logits, bank, labels, training.stage2.losses)
    return replace(loss, after_backward=after_backward)


def hide_metadata(metadata: Tensor, probability: float, seeds: Sequence[int]) -> Tensor:
    """Make the metadata of a random share of clips unknown, each by its own seed. (B, 3)."""
    draws = [np.random.default_rng([seed, 0x6D657461]).random() for seed in seeds]
    hidden = torch.tensor(draws, device=metadata.device) < probability
    return metadata.masked_fill(hidden[:, None], float("nan"))


def trained_tensors(model: VideoReID) -> dict[str, Tensor]:
    """What the backbone's file does not have: new or trained parameters, and BN statistics.

    New ones are in even if they are frozen at a random start (`prompts.train: false`).
    """
    given = {f"visual.{name}" for name, p in model.visual.named_parameters() if not p.requires_grad}
    state: dict[str, Tensor] = model.state_dict()
    return {name: tensor for name, tensor in state.items() if name not in given}

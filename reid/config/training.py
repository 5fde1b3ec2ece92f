"""Options of a training: everything that changes weights.

Defaults are the paper's baseline (Tables 2 and 3).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reid.config.base import (
    Count,
    Name,
    NonNegative,
    Number,
    Positive,
    Section,
    Share,
    Size,
    Whole,
    option,
)


class Prompts(Section):
    """Prompt-based cross-view conditioning, PBP (Sec. 3.1, Table 4)."""

    length: Annotated[Whole, Field(le=4096)] = option(1, "prompt tokens per block; 0 turns PBP off")
    depth: Size = option(9, "number of blocks with prompts, from the first")
    camera: bool = option(True, "one prompt bank per camera")
    metadata: bool = option(True, "add altitude, distance and angle banks (interpretation)")
    altitude_bins: Count = option(18, "uniform bins on [0, 120] m")
    distance_bins: Count = option(18, "uniform bins on [0, 120] m")
    metadata_dropout: Share = option(
        0.1, "share of clips whose metadata training hides (interpretation)"
    )
    train: bool = option(True, "false freezes prompts at their start, as the released code does")

    @model_validator(mode="after")
    def _conditioned(self) -> Self:
        if self.length and not (self.camera or self.metadata):
            raise ValueError("prompts of a length need a condition: camera, metadata, or length 0")
        return self


class Adapters(Section):
    """Spatial and temporal adapters in every block (Sec. 3.1; MODEL 4.2)."""

    spatial: bool = option(True, "bottleneck parallel to the MLP")
    temporal: bool = option(True, "attention over frames, parallel to attention")
    width: Annotated[Size, Field(ge=64, multiple_of=64)] = option(
        256, "bottleneck width; temporal heads are width / 64"
    )


class Pooling(Section):
    """Frames to tracklet (Sec. 3.2.3, Eq. 2-4)."""

    kind: Literal["mean", "attention"] = option("mean", "attention: one weight a frame (Eq. 2-4)")
    quality: bool = option(False, "QATW: learned bias by log crop height (interpretation)")
    train: bool = option(True, "false freezes attention at its start, as the released code does")

    @model_validator(mode="after")
    def _quality_weights_attention(self) -> Self:
        if self.quality and self.kind != "attention":
            raise ValueError("pooling.quality weights attention: set pooling.kind to attention")
        return self


class Neck(Section):
    """Between features and classifiers (BNNeck)."""

    instance_norm: bool = option(False, "standardize each feature before BN (interpretation)")
    train_bias: bool = option(False, "train the BN bias, as the released code does")


class FineTune(Section):
    """Selective fine-tuning of the visual tower in stage 2 (Sec. 3.2.2)."""

    blocks: Whole = option(0, "last blocks that train, in stage 2 (interpretation)")
    lr_multiplier: NonNegative = option(0.1, "their learning rate over the base rate")


class Losses(Section):
    """Weights of the stage-2 terms (Eq. 1, Table 2; MODEL 4.6)."""

    identity: NonNegative = option(0.25, "cross-entropy of the two classifiers")
    triplet: NonNegative = option(1.0, "batch-hard triplet on three features")
    image_to_text: NonNegative = option(1.0, "contrastive, image to text")
    text_to_image: NonNegative = option(1.0, "contrastive, text to image")
    text_bank: NonNegative = option(1.0, "cross-entropy over the text features of all identities")
    label_smoothing: Number = option(0.1, "of every cross-entropy", ge=0, lt=1)
    margin: NonNegative = option(0.3, "of the triplet loss, cosine distance")


class ColorJitter(Section):
    """Strengths as in torchvision; all zero turns it off (Sec. 4.2)."""

    brightness: NonNegative = option(0.0, "factor drawn from 1 ± this")
    contrast: NonNegative = option(0.0, "factor drawn from 1 ± this")
    saturation: NonNegative = option(0.0, "factor drawn from 1 ± this")
    hue: Number = option(0.0, "shift drawn from ± this, in turns of the color wheel", ge=0, le=0.5)
    per: Literal["frame", "clip"] = option("frame", "the released code draws per frame")
    place: Literal["after_resize", "on_crop"] = Field(
        "after_resize",
        description="as released; `on_crop`, before it, is faster and not quite the same operation",
    )

    @property
    def active(self) -> bool:
        """Whether any strength is above zero."""
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0


class Augment(Section):
    """Training augmentation (Sec. 3.2.5 and 4.2)."""

    flip: Share = option(0.5, "probability of mirroring a clip")
    erase: Share = option(0.5, "probability of erasing a rectangle of each frame")
    pad: Annotated[Whole, Field(le=4096)] = option(
        0, "pixels of padding before a random crop back (interpretation)"
    )
    color_jitter: ColorJitter = ColorJitter()


class Clip(Section):
    """What the network sees of a tracklet."""

    frames: Size = option(16, "frames sampled from a tracklet")
    height: Size = option(256, "pixels")
    width: Size = option(128, "pixels")
    test_sampling: Literal["first", "center"] = option(
        "first", "which frame of each of the equal chunks is taken at test"
    )


class Schedule(Section):
    """Learning rate per epoch (Table 2, Table 4)."""

    kind: Literal["cosine", "multistep"] = option("cosine", "shape after the warm-up")
    min_lr: NonNegative = option(1e-6, "end of the cosine")
    steps: tuple[Whole, ...] = option((60, 90), "epochs at which multistep decays")
    gamma: Positive = option(0.1, "decay factor of multistep")
    warmup_epochs: Whole = option(0, "epochs of linear warm-up; 0 starts at the base rate")
    warmup_factor: Share = option(0.1, "learning rate at epoch 0 over the base rate")
    stepped: Literal["before", "after"] = option(
        "after", "before: the first epoch already runs at epoch 1 of the schedule"
    )

    @model_validator(mode="after")
    def _steps_of_multistep(self) -> Self:
        if self.kind == "cosine" and self.steps != Schedule.model_fields["steps"].default:
            raise ValueError("steps does nothing with kind cosine: leave it out")
        return self


class Stage(Section):
    """What both stages of training have."""

    epochs: Whole = option(120, "0 leaves what it trains at its initial values")
    batch_size: Annotated[Size, Field(ge=2)] = option(16, "tracklets")
    instances: Size = option(8, "K of PK sampling: tracklets of one identity")
    lr: Positive = Field(description="base learning rate of Adam")
    weight_decay: NonNegative = Field(description="L2, added to the gradient")
    schedule: Schedule = Schedule()

    @field_validator("schedule", mode="before")
    @classmethod
    def _completed(cls, raw: Any) -> Any:
        """A partial schedule over the default of its stage, not over that of `Schedule`."""
        default: Schedule = cls.model_fields["schedule"].default
        return {**default.model_dump(), **raw} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        if self.batch_size % self.instances:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of instances ({self.instances})"
            )
        return self


class Stage1(Stage):
    """Identity text contexts against frozen image features (Table 2; MODEL 4.5)."""

    lr: Positive = option(3.5e-4, "base learning rate of Adam")
    weight_decay: NonNegative = option(1e-4, "L2, added to the gradient")
    schedule: Schedule = Schedule(warmup_epochs=5, warmup_factor=1e-5 / 3.5e-4, stepped="before")
    view: Literal["augmented", "clean"] = option(
        "augmented", "the one view whose features are cached; augmented as released"
    )


class Stage2(Stage):
    """Adapters, prompts, pools, heads (Table 2; MODEL 4.6)."""

    lr: Positive = option(1e-4, "base learning rate of Adam")
    weight_decay: NonNegative = option(2.5e-4, "L2, added to the gradient")
    bias_lr_multiplier: NonNegative = option(2.0, "learning rate of biases over base")
    bias_weight_decay: NonNegative = option(1e-4, "L2 of biases")
    schedule: Schedule = Schedule(kind="multistep", warmup_epochs=10, stepped="before")
    losses: Losses = Losses()


class Model(Section):
    """What is built around the CLIP towers."""

    stride: Annotated[Whole, Field(le=4096)] = option(
        0, "stride of the patch convolution; 0 takes the patch size of the weights"
    )
    positions: Literal["bilinear", "bicubic"] = option(
        "bilinear", "how their embeddings are resized"
    )
    prompts: Prompts = Prompts()
    adapters: Adapters = Adapters()
    pooling: Pooling = Pooling()
    neck: Neck = Neck()


class Validation(Section):
    """Training identities held out, for `reid tune`: the test set is not looked at."""

    share: Number = option(
        0.0, "share of the training identities that are held out; 0 trains on all", ge=0, lt=1
    )
    seed: Whole = option(0, "which ones")


class Training(Section):
    """Everything that changes weights."""

    backbone: Name = option("vit_b16", "key of `backbones`")
    clip: Clip = Clip()
    model: Model = Model()
    finetune: FineTune = FineTune()
    augment: Augment = Augment()
    validation: Validation = Validation()
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()

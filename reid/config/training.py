"""Options of a training: everything that changes weights.

Defaults are the paper's baseline (Tables 2 and 3).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reid.config.base import Count, Name, NonNegative, Number, Positive, Section, Share, Size, Whole


class Prompts(Section):
    """Prompt-based cross-view conditioning, PBP (Sec. 3.1, Table 4)."""

    length: Annotated[Whole, Field(le=4096)] = Field(
        1, description="prompt tokens per block; 0 turns PBP off"
    )
    depth: Size = Field(9, description="number of blocks with prompts, from the first")
    camera: bool = Field(True, description="one prompt bank per camera")
    metadata: bool = Field(
        True, description="add altitude, distance and angle banks (interpretation)"
    )
    altitude_bins: Count = Field(18, description="uniform bins on [0, 120] m")
    distance_bins: Count = Field(18, description="uniform bins on [0, 120] m")
    metadata_dropout: Share = Field(
        0.1, description="share of training clips whose metadata is hidden (interpretation)"
    )
    train: bool = Field(
        True, description="false freezes the prompts at their start, as the released code does"
    )

    @model_validator(mode="after")
    def _conditioned(self) -> Self:
        if self.length and not (self.camera or self.metadata):
            raise ValueError("prompts of a length need a condition: camera, metadata, or length 0")
        return self


class Adapters(Section):
    """Spatial and temporal adapters in every block (Sec. 3.1; MODEL 4.2)."""

    spatial: bool = Field(True, description="bottleneck parallel to the MLP")
    temporal: bool = Field(True, description="attention over frames, parallel to attention")
    width: Annotated[Size, Field(ge=64, multiple_of=64)] = Field(
        256, description="bottleneck width; temporal heads are width / 64"
    )


class Pooling(Section):
    """Frames to tracklet (Sec. 3.2.3, Eq. 2-4)."""

    kind: Literal["mean", "attention"] = Field(
        "mean", description="attention learns one weight a frame (Eq. 2-4)"
    )
    quality: bool = Field(
        False, description="QATW: learned bias by log crop height (interpretation)"
    )
    train: bool = Field(
        True, description="false freezes attention at its start, as the released code does"
    )

    @model_validator(mode="after")
    def _quality_weights_attention(self) -> Self:
        if self.quality and self.kind != "attention":
            raise ValueError("pooling.quality weights attention: set pooling.kind to attention")
        return self


class Neck(Section):
    """Between features and classifiers (BNNeck)."""

    instance_norm: bool = Field(
        False, description="standardize each feature vector before BN (interpretation)"
    )
    train_bias: bool = Field(False, description="train the BN bias, as the released code does")


class FineTune(Section):
    """Selective fine-tuning of the visual tower in stage 2 (Sec. 3.2.2)."""

    blocks: Whole = Field(0, description="last blocks that train, in stage 2 (interpretation)")
    lr_multiplier: NonNegative = Field(0.1, description="their learning rate over the base rate")


class Losses(Section):
    """Weights of the stage-2 terms (Eq. 1, Table 2; MODEL 4.6)."""

    identity: NonNegative = Field(0.25, description="cross-entropy of the two classifiers")
    triplet: NonNegative = Field(1.0, description="batch-hard triplet on three features")
    image_to_text: NonNegative = Field(1.0, description="contrastive, image to text")
    text_to_image: NonNegative = Field(1.0, description="contrastive, text to image")
    text_bank: NonNegative = Field(
        1.0, description="cross-entropy over the text features of all identities"
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.1, description="of every cross-entropy"
    )
    margin: NonNegative = Field(0.3, description="of the triplet loss, cosine distance")


class ColorJitter(Section):
    """Strengths as in torchvision; all zero turns it off (Sec. 4.2)."""

    brightness: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    contrast: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    saturation: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    hue: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        0.0, description="shift drawn from ± this, in turns of the color wheel"
    )
    per: Literal["frame", "clip"] = Field("frame", description="the released code draws per frame")
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

    flip: Share = Field(0.5, description="probability of mirroring a clip")
    erase: Share = Field(0.5, description="probability of erasing a rectangle of each frame")
    pad: Annotated[Whole, Field(le=4096)] = Field(
        0, description="pixels of padding before a random crop back (interpretation)"
    )
    color_jitter: ColorJitter = ColorJitter()


class Clip(Section):
    """What the network sees of a tracklet."""

    frames: Size = Field(16, description="frames sampled from a tracklet")
    height: Size = Field(256, description="pixels")
    width: Size = Field(128, description="pixels")
    test_sampling: Literal["first", "center"] = Field(
        "first", description="which frame of each of the equal chunks is taken at test"
    )


class Schedule(Section):
    """Learning rate per epoch (Table 2, Table 4)."""

    kind: Literal["cosine", "multistep"] = Field("cosine", description="shape after the warm-up")
    min_lr: NonNegative = Field(1e-6, description="end of the cosine")
    steps: tuple[Whole, ...] = Field((60, 90), description="epochs at which multistep decays")
    gamma: Positive = Field(0.1, description="decay factor of multistep")
    warmup_epochs: Whole = Field(
        0, description="epochs of linear warm-up; 0 starts at the base rate"
    )
    warmup_factor: Share = Field(0.1, description="learning rate at epoch 0 over the base rate")
    stepped: Literal["before", "after"] = Field(
        "after", description="before: the first epoch already runs at epoch 1 of the schedule"
    )

    @model_validator(mode="after")
    def _steps_of_multistep(self) -> Self:
        if self.kind == "cosine" and self.steps != Schedule.model_fields["steps"].default:
            raise ValueError("steps does nothing with kind cosine: leave it out")
        return self


class Stage(Section):
    """What both stages of training have."""

    epochs: Whole = Field(120, description="0 leaves what it trains at its initial values")
    batch_size: Annotated[Size, Field(ge=2)] = Field(16, description="tracklets")
    instances: Size = Field(8, description="K of PK sampling: tracklets of one identity")
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

    lr: Positive = Field(3.5e-4, description="base learning rate of Adam")
    weight_decay: NonNegative = Field(1e-4, description="L2, added to the gradient")
    schedule: Schedule = Schedule(warmup_epochs=5, warmup_factor=1e-5 / 3.5e-4, stepped="before")
    view: Literal["augmented", "clean"] = Field(
        "augmented", description="the one view whose features are cached; augmented as released"
    )


class Stage2(Stage):
    """Adapters, prompts, pools, heads (Table 2; MODEL 4.6)."""

    lr: Positive = Field(1e-4, description="base learning rate of Adam")
    weight_decay: NonNegative = Field(2.5e-4, description="L2, added to the gradient")
    bias_lr_multiplier: NonNegative = Field(2.0, description="learning rate of biases over base")
    bias_weight_decay: NonNegative = Field(1e-4, description="L2 of biases")
    schedule: Schedule = Schedule(kind="multistep", warmup_epochs=10, stepped="before")
    losses: Losses = Losses()


class Model(Section):
    """What is built around the CLIP towers."""

    stride: Annotated[Whole, Field(le=4096)] = Field(
        0, description="stride of the patch convolution; 0 takes the patch size of the weights"
    )
    positions: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="how position embeddings are resized"
    )
    prompts: Prompts = Prompts()
    adapters: Adapters = Adapters()
    pooling: Pooling = Pooling()
    neck: Neck = Neck()


class Validation(Section):
    """Training identities held out, for `reid tune`: the test set is not looked at."""

    share: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the training identities that are held out; 0 trains on all"
    )
    seed: Whole = Field(0, description="which ones")


class Training(Section):
    """Everything that changes weights."""

    backbone: Name = Field("vit_b16", description="key of `backbones`")
    clip: Clip = Clip()
    model: Model = Model()
    finetune: FineTune = FineTune()
    augment: Augment = Augment()
    validation: Validation = Validation()
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()

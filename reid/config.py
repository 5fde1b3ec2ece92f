"""Every option of the project, declared once.

Three notions (config/README.md): a *training* is everything that changes weights, a *variant*
is a row of the ablation table (a training and an inference setting), a *dataset* is where the
crops lie. Defaults of the training classes are the paper's baseline (Tables 2 and 3); the other
trainings of the table are written in config/config.yaml as differences from it (`extends`).
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reid.errors import UserError
from reid.files import read_yaml

Protocol = Literal["A2G", "G2A", "A2A", "G2G", "ALL"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Value = TypeVar("Value")
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]

STANDARD = Path("config/config.yaml")
"""The configuration that the workflow reads by itself."""

OPEN_CLIP_PREFIX = "open_clip:"


class Section(BaseModel):
    """A strict, immutable group of options: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _expanded(text: Any) -> Any:
    """A path with `~` and `$VARIABLES` as the shell has them. Raises ValueError on one unset."""
    if not isinstance(text, str):
        return text
    path = os.path.expandvars(text)
    if "$" in path:
        raise ValueError(f"{text} names a variable that is not set here")
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError(f"{text} names a home folder that is not known here") from None


class Dataset(Section):
    """Where the crops lie and how strictly they are read."""

    name: Name = Field("detreidx", description="names the folder under results/")
    root: Path = Field(description="folder of the dataset; with DetReIDX that of train/")
    layout: Literal["detreidx", "mars", "g2a-vreid", "ag-vpreid", "manifest", "folders"] = Field(
        "detreidx", description="convention of folders and file names (docs/DATA.md)"
    )
    manifest: Path | None = Field(
        None, description="CSV of layout `manifest`; unset: manifest.csv in the root"
    )
    protocols: tuple[Protocol, ...] = Field(
        ("A2G", "G2A", "A2A"),
        min_length=1,
        description="query to gallery: Aerial, Ground; ALL whatever the view",
    )
    metadata: bool = Field(
        True, description="false hides altitude, distance and angle everywhere: train and test"
    )
    max_rejected_share: Share = Field(
        0.0, description="share of files that may be unreadable or misnamed before `index` fails"
    )
    max_unmatched_query_share: Share = Field(
        0.0, description="share of queries that may lack a positive before `index` fails"
    )
    check_sizes: bool = Field(
        True,
        description="`index` looks at every file to find empty ones; false: lists folders only",
    )
    damaged: Path | None = Field(
        None, description="damaged.csv of `reid check`: frames that `index` leaves out, and counts"
    )
    allow_shared_identities: bool = Field(
        False, description="the test set reuses identity numbers of training for other people"
    )

    @field_validator("root", "manifest", "damaged", mode="before")
    @classmethod
    def _expand(cls, path: Any) -> Any:
        return _expanded(path)

    @field_validator("protocols")
    @classmethod
    def _once_each(cls, protocols: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
        return _without_repeats(protocols)


class Backbone(Section):
    """Where CLIP weights come from; the geometry is read from the weights."""

    weights: str = Field(description="a local file, or `open_clip:<model>:<tag>` (network)")

    @field_validator("weights", mode="before")
    @classmethod
    def _expand(cls, path: Any) -> Any:
        return _expanded(path)

    @property
    def file(self) -> Path | None:
        """The local file; None where open_clip fetches the weights by their tag."""
        return None if self.weights.startswith(OPEN_CLIP_PREFIX) else Path(self.weights)


class Prompts(Section):
    """Prompt-based cross-view conditioning, PBP (Sec. 3.1, Table 4)."""

    length: Whole = Field(1, description="prompt tokens per block; 0 turns PBP off")
    depth: Count = Field(9, description="number of blocks with prompts, from the first")
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
    width: Annotated[int, Field(ge=64, multiple_of=64)] = Field(
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
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="of every cross-entropy"
    )
    margin: NonNegative = Field(0.3, description="of the triplet loss, cosine distance")


class ColorJitter(Section):
    """Strengths as in torchvision; all zero turns it off (Sec. 4.2)."""

    brightness: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    contrast: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    saturation: NonNegative = Field(0.0, description="factor drawn from 1 ± this")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
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
    pad: Whole = Field(
        0, description="pixels of padding before a random crop back (interpretation)"
    )
    color_jitter: ColorJitter = ColorJitter()


class Clip(Section):
    """What the network sees of a tracklet."""

    frames: Count = Field(16, description="frames sampled from a tracklet")
    height: Count = Field(256, description="pixels")
    width: Count = Field(128, description="pixels")
    test_sampling: Literal["first", "center"] = Field(
        "first", description="which frame of each of the equal chunks is taken at test"
    )


class Schedule(Section):
    """Learning rate per epoch (Table 2, Table 4)."""

    kind: Literal["cosine", "multistep"] = Field("cosine", description="shape after the warm-up")
    min_lr: NonNegative = Field(1e-6, description="end of the cosine")
    steps: tuple[int, ...] = Field((60, 90), description="epochs at which multistep decays")
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


def _without_repeats(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """What the table would average as if it were independent. Raises ValueError on a repeat."""
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{value} is there {times} times, expected each value once")
    return values


def _over(default: Schedule, raw: Any) -> Any:
    """Part of a schedule over the default of its stage, not over that of schedules in general."""
    return {**default.model_dump(), **raw} if isinstance(raw, dict) else raw


def _demand_whole_identities(stage: str, batch_size: int, instances: int) -> None:
    if batch_size % instances:
        raise ValueError(
            f"{stage}.batch_size ({batch_size}) must be a multiple of "
            f"{stage}.instances ({instances})"
        )


class Stage1(Section):
    """Identity text contexts against frozen image features (Table 2; MODEL 4.5)."""

    epochs: Whole = Field(120, description="0 leaves the text contexts at their initial values")
    batch_size: Count = Field(16, description="tracklets")
    lr: Positive = Field(3.5e-4, description="base learning rate of Adam")
    weight_decay: NonNegative = Field(1e-4, description="L2, added to the gradient")
    instances: Count = Field(8, description="K of the PK sampling that picks the cached views")
    schedule: Schedule = Schedule(warmup_epochs=5, warmup_factor=1e-5 / 3.5e-4, stepped="before")
    view: Literal["augmented", "clean"] = Field(
        "augmented", description="the one view whose features are cached; augmented as released"
    )

    @field_validator("schedule", mode="before")
    @classmethod
    def _completed(cls, raw: Any) -> Any:
        return _over(cls.model_fields["schedule"].default, raw)

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        _demand_whole_identities("stage1", self.batch_size, self.instances)
        return self


class Stage2(Section):
    """Adapters, prompts, pools, heads (Table 2; MODEL 4.6)."""

    epochs: Whole = Field(120, description="0 leaves the network at its initial values")
    batch_size: Count = Field(16, description="tracklets")
    instances: Count = Field(8, description="K of PK sampling: tracklets of one identity")
    lr: Positive = Field(1e-4, description="base learning rate of Adam")
    weight_decay: NonNegative = Field(2.5e-4, description="L2, added to the gradient")
    bias_lr_multiplier: NonNegative = Field(2.0, description="learning rate of biases over base")
    bias_weight_decay: NonNegative = Field(1e-4, description="L2 of biases")
    schedule: Schedule = Schedule(kind="multistep", warmup_epochs=10, stepped="before")
    losses: Losses = Losses()

    @field_validator("schedule", mode="before")
    @classmethod
    def _completed(cls, raw: Any) -> Any:
        return _over(cls.model_fields["schedule"].default, raw)

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        _demand_whole_identities("stage2", self.batch_size, self.instances)
        return self


class Model(Section):
    """What is built around the CLIP towers."""

    stride: Annotated[int, Field(ge=0)] = Field(
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

    share: Annotated[float, Field(ge=0, lt=1)] = Field(
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


class ReRanking(Section):
    """k-reciprocal re-ranking (Sec. 3.2.6)."""

    k1: Count = Field(description="neighbors that must be mutual")
    k2: Count = Field(description="neighbors averaged in query expansion; at most k1")
    lambda_value: Share = Field(description="weight of the original distance")
    normalize: bool = Field(True, description="false re-ranks raw features, as released")
    form: Literal["float32", "released", "unnormalized"] = Field(
        "float32",
        description="arithmetic: `released` keeps float16 as the released code does; "
        "`unnormalized` does not divide by the farthest distance (cluster-contrast)",
    )

    @model_validator(mode="after")
    def _k2_within_k1(self) -> Self:
        if self.k2 > self.k1:
            raise ValueError(f"rerank.k2 ({self.k2}) must not exceed rerank.k1 ({self.k1})")
        return self


class Variant(Section):
    """A row of the table: a training and how its features are used."""

    training: Name = Field(description="key of `trainings`")
    label: str = Field(description="name of the row in the table")
    flip_tta: bool = Field(False, description="average features of clip and mirrored clip")
    rerank: ReRanking | None = None
    tuned: bool = Field(
        False,
        description="re-rank with what `reid tune` chose on the identities that the training "
        "holds out; `rerank: tuned` says the same",
    )
    paper: float | None = Field(None, description="the paper's figure for this row, in %")
    note: str = Field("", description="printed under the table")
    reference: bool = Field(
        False, description="not a row of the ablation: printed below it for comparison"
    )

    @model_validator(mode="before")
    @classmethod
    def _spelled_as_rerank(cls, raw: Any) -> Any:
        rerank = raw.get("rerank") if isinstance(raw, dict) else None
        if rerank == "tuned":
            return {**raw, "rerank": None, "tuned": True}
        if isinstance(rerank, str):
            raise ValueError(f"rerank is {rerank!r}: expected `tuned`, or k1, k2 and lambda_value")
        return raw

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.tuned and self.rerank is not None:
            raise ValueError("a variant is tuned or has its own rerank: leave out one of them")
        return self


class Tune(Section):
    """The grid that `reid tune` searches on the identities held out of training."""

    k1: tuple[Count, ...] = Field(
        (10, 14, 18, 20, 22, 24, 26, 28, 34, 40), min_length=1, description="values tried"
    )
    k2: tuple[Count, ...] = Field((1, 3, 6, 9), min_length=1, description="values tried")
    lambda_values: tuple[Share, ...] = Field(
        (0.0, 0.1, 0.2, 0.28, 0.3, 0.5), min_length=1, description="values tried"
    )


class Demo(Section):
    """Sizes of the embedded benchmark and of the tiny CLIPs that stand for B/16 and L/14."""

    seed: int = Field(7, description="of everything that is rendered")
    train_identities: Count = Field(24, description="people rendered for training")
    test_identities: Count = Field(16, description="other people, for the protocols")
    frames: Count = Field(8, description="frames of a tracklet")
    ground_tracklets: Count = Field(4, description="of one identity, over both sessions")
    capture_points: Annotated[int, Field(ge=1, le=18)] = Field(
        6, description="aerial tracklets of one identity and session, each at its own point"
    )
    changed_share: Share = Field(
        0.5, description="share of people who change part of their clothes between sessions"
    )
    captions: Count = Field(4000, description="rendered crops with captions for the tiny CLIPs")
    clip_epochs: Count = Field(4, description="epochs of pre-training of a tiny CLIP")


class Report(Section):
    """What the report shows: `reid report`, results/<dataset>/report.html."""

    variant: Name | None = Field(
        None, description="row shown in detail; without it the last of the ablation that was run"
    )
    faces: Literal["blur", "keep"] = Field(
        "blur", description="blur the head in every picture of people; it does not anonymize them"
    )
    top: Count = Field(10, description="gallery tracklets of a ranked list")
    queries: Whole = Field(
        2, description="ranked lists of random queries, beside the best and worst of each protocol"
    )
    seed: Whole = Field(0, description="of what is drawn at random")
    attention_tracklets: Count = Field(
        150, description="tracklets that temporal weights are compared with height and sharpness on"
    )


class Runtime(Section):
    """What changes speed, not results: but for `precision`, no part of a fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU if there is one"
    )
    workers: Whole = Field(2, description="data-loading processes; 0 loads in the trainer")
    decoder: Literal["fast", "pillow"] = Field(
        "fast", description="of frames; the same gray levels, pillow is the plain slow path"
    )
    pack: Path | None = Field(
        None, description="folder that `reid pack` writes; set: frames are read from it, not root"
    )
    stage_to: str | None = Field(
        None, description="copy the pack to this disk of the node first, for example `$TMPDIR`"
    )
    extract_batch: Count = Field(16, description="tracklets of an extraction batch (Table 3)")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of forward passes; auto is bf16 on a GPU that has it, else fp32, as the "
        "manifest says; a change trains and extracts again",
    )
    micro_batch: Whole = Field(
        0, description="tracklets embedded at a time in stage 2, same gradient; 0: the whole batch"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute each block in the backward pass to save memory"
    )
    compile: bool = Field(False, description="torch.compile the blocks of the visual tower")
    checkpoint_minutes: Positive = Field(10, description="between checkpoints within an epoch")
    keep_checkpoints: Count = Field(2, description="checkpoints kept of each stage")
    tensorboard: bool = Field(True, description="also write curves for TensorBoard")

    @field_validator("pack", mode="before")
    @classmethod
    def _expand(cls, path: Any) -> Any:
        return _expanded(path)

    @model_validator(mode="after")
    def _stages_a_pack(self) -> Self:
        if self.stage_to is not None and self.pack is None:
            raise ValueError("stage_to copies the pack: set runtime.pack too, or leave it out")
        return self


class Config(Section):
    """The whole configuration."""

    dataset: Dataset
    seeds: tuple[Whole, ...] = Field(
        (1,), min_length=1, description="every training runs once per seed"
    )
    backbones: dict[Name, Backbone]
    trainings: dict[Name, Training]
    variants: dict[Name, Variant]
    tune: Tune = Tune()
    report: Report = Report()
    demo: Demo | None = Field(None, description="present: the DAG renders its data and weights")
    runtime: Runtime = Runtime()

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _without_repeats(seeds)

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, training in self.trainings.items():
            _known(training.backbone, self.backbones, f"trainings.{name}.backbone")
        for name, variant in self.variants.items():
            _known(variant.training, self.trainings, f"variants.{name}.training")
            if variant.tuned and self.trainings[variant.training].validation.share == 0:
                raise ValueError(
                    f"variants.{name} is tuned, but trainings.{variant.training} holds no "
                    "identities out: set its validation.share"
                )
        if self.report.variant is not None:
            _known(self.report.variant, self.variants, "report.variant")
        return self


def load(paths: Sequence[Path]) -> Config:
    """Read YAML files, each a difference from the one before, into one `Config`.

    Raises UserError with the file, the key and the nearest valid name.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        content = read_yaml(path)
        if not isinstance(content, dict):
            found = "nothing" if content is None else f"a {type(content).__name__}"
            raise UserError(f"{path}: expected a mapping of options, found {found}")
        merged = _merge(merged, content)
    try:
        return parse(merged, source=", ".join(str(path) for path in paths))
    except UserError as error:
        needed = {name for name, field in Config.model_fields.items() if field.is_required()}
        if needed <= merged.keys():
            raise
        raise UserError(
            f"{error}; if it is only a difference, name first what it differs from: --config "
            f"{STANDARD} --config {paths[0]}"
        ) from None


def parse(raw: Mapping[str, Any], *, source: str) -> Config:
    """Validate a merged configuration; `source` names it in errors. Raises UserError."""
    resolved = dict(raw)
    if isinstance(resolved.get("trainings"), dict):
        resolved["trainings"] = _resolve_extends(resolved["trainings"], source)
    try:
        return Config.model_validate(resolved)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(_explain(error))}") from None


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _extended(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `parent`, whose steps end where a schedule becomes a cosine, which has none."""
    merged = _merge(parent, own)
    for stage in ("stage1", "stage2"):
        change = own.get(stage)
        change = change.get("schedule") if isinstance(change, dict) else None
        if isinstance(change, dict) and change.get("kind") == "cosine" and "steps" not in change:
            schedule = {k: v for k, v in merged[stage]["schedule"].items() if k != "steps"}
            merged[stage] = {**merged[stage], "schedule": schedule}
    return merged


def _resolve_extends(trainings: Mapping[str, Any], source: str) -> dict[str, Any]:
    resolved: dict[str, dict[str, Any]] = {}

    def resolve(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if name in chain:
            raise UserError(f"{source}: trainings extend each other: {' -> '.join((*chain, name))}")
        if name not in trainings:
            where = f"trainings.{chain[-1]}.extends" if chain else "trainings"
            raise UserError(f"{source}: {where}: no training {name!r}{nearest(name, trainings)}")
        if name not in resolved:
            own = trainings[name]
            if not isinstance(own, dict):
                raise UserError(f"{source}: trainings.{name}: expected a mapping, found {own!r}")
            parent = own.get("extends")
            own = {key: value for key, value in own.items() if key != "extends"}
            resolved[name] = (
                own if parent is None else _extended(resolve(parent, (*chain, name)), own)
            )
        return resolved[name]

    for name in trainings:
        resolve(name, ())
    return resolved


_SHAPES = {
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
}
"""What YAML calls what Python calls otherwise, by the kind of Pydantic's error."""


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            siblings = _keys_beside(problem["loc"])
            yield f"unknown key {key}{nearest(str(problem['loc'][-1]), siblings)}"
        elif problem["type"] == "missing":
            yield f"missing key {key}"
        else:
            message = _in_yaml(problem["type"], problem["msg"], problem["input"])
            yield f"{key}: {message}" if key else message


def _in_yaml(kind: str, message: str, found: Any) -> str:
    """Pydantic's words about a value in those of YAML."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", message)
        return f"no {found!r}{nearest(str(found), known)}"
    expected = _SHAPES.get(kind) or message.replace("Input should be", "expected")
    return f"{expected}, found {'nothing' if found is None else repr(found)[:40]}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that are valid where `location` ends."""
    section: Any = Config
    for part in location[:-1]:
        if isinstance(section, type) and issubclass(section, BaseModel):
            field = section.model_fields.get(str(part))
            section = None if field is None else field.annotation
        else:
            section = _value_type(section)
        section = _section_of(section)
    if isinstance(section, type) and issubclass(section, BaseModel):
        return list(section.model_fields)
    return []


def _value_type(mapping: Any) -> Any:
    return mapping.__args__[-1] if hasattr(mapping, "__args__") else None


def _section_of(annotation: Any) -> Any:
    """The section class inside `Section | None`, else the annotation itself."""
    for option in getattr(annotation, "__args__", ()):
        if (
            isinstance(option, type)
            and issubclass(option, Section)
            and type(None) in annotation.__args__
        ):
            return option
    return annotation


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """What to append to an error about an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(known)})" if known else ""


def chosen(table: Mapping[str, Value], name: str, section: str) -> Value:
    """The entry `name` of a section. Raises UserError with the nearest valid name."""
    if name not in table:
        raise UserError(f"{section}: no {name!r}{nearest(name, table)}")
    return table[name]


def _known(name: str, table: Mapping[str, Any], key: str) -> None:
    if name not in table:
        raise ValueError(f"{key}: no {name!r}{nearest(name, table)}")

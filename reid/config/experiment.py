"""The whole experiment: dataset, backbones, trainings, variants and the machine's options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from reid.config.base import (
    Count,
    LocalPath,
    Name,
    Number,
    Positive,
    Section,
    Share,
    Size,
    Whole,
    expanded,
    nearest,
    option,
    without_repeats,
)
from reid.config.training import Training

Protocol = Literal["A2G", "G2A", "A2A", "G2G", "ALL"]

OPEN_CLIP_PREFIX = "open_clip:"


class Dataset(Section):
    """Where the crops lie and how strictly they are read."""

    name: Name = option("detreidx", "names the folder under results/")
    root: LocalPath = Field(description="folder of the dataset; with DetReIDX that of train/")
    layout: Literal["detreidx", "mars", "g2a-vreid", "ag-vpreid", "manifest", "folders"] = option(
        "detreidx", "convention of folders and file names (docs/DATA.md)"
    )
    manifest: LocalPath | None = option(None, "CSV of layout `manifest`; unset: manifest.csv there")
    protocols: Annotated[tuple[Protocol, ...], AfterValidator(without_repeats)] = Field(
        ("A2G", "G2A", "A2A"),
        min_length=1,
        description="query to gallery: Aerial, Ground; ALL whatever the view",
    )
    metadata: bool = option(True, "false hides altitude, distance and angle in training and test")
    max_rejected_share: Share = option(0.0, "share of files that may be unreadable or misnamed")
    max_unmatched_query_share: Share = option(0.0, "share of queries that may lack a positive")
    check_sizes: bool = Field(
        True,
        description="`index` looks at every file to find empty ones; false: lists folders only",
    )
    damaged: LocalPath | None = option(None, "damaged.csv of `reid check`: frames to leave out")
    allow_shared_identities: bool = option(False, "test people may have numbers of training people")


class Backbone(Section):
    """Where CLIP weights come from; the geometry is read from the weights."""

    weights: Annotated[str, BeforeValidator(expanded)] = Field(
        description="a local file, or `open_clip:<model>:<tag>` (network)"
    )
    activation: Literal["quick_gelu", "gelu"] | None = Field(
        None,
        description="of the MLPs; unset: the tag's, for a file `quick_gelu` as in OpenAI's; most "
        "others (LAION, DataComp) need `gelu`, which a file cannot tell",
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = option(
        None, "of the weights file; set: another file is refused"
    )

    @property
    def file(self) -> Path | None:
        """The local file; None where open_clip fetches the weights by their tag."""
        return None if self.weights.startswith(OPEN_CLIP_PREFIX) else Path(self.weights)


class ReRanking(Section):
    """k-reciprocal re-ranking (Sec. 3.2.6)."""

    k1: Count = Field(description="neighbors that must be mutual")
    k2: Count = Field(description="neighbors averaged in query expansion; at most k1")
    lambda_value: Share = Field(description="weight of the original distance")
    normalize: bool = option(True, "false re-ranks raw features, as released")
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
    flip_tta: bool = option(False, "average features of clip and mirrored clip")
    rerank: ReRanking | None = None
    tuned: bool = Field(
        False,
        description="re-rank with what `reid tune` chose on the identities that the training "
        "holds out; `rerank: tuned` says the same",
    )
    paper: Number | None = option(None, "the paper's figure for this row, in %")
    note: str = option("", "printed under the table")
    reference: bool = option(False, "not a row of the ablation: printed below it for comparison")

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

    k1: tuple[Count, ...] = option(
        (10, 14, 18, 20, 22, 24, 26, 28, 34, 40), "values tried", min_length=1
    )
    k2: tuple[Count, ...] = option((1, 3, 6, 9), "values tried", min_length=1)
    lambda_values: tuple[Share, ...] = option(
        (0.0, 0.1, 0.2, 0.28, 0.3, 0.5), "values tried", min_length=1
    )


class Demo(Section):
    """Sizes of the embedded benchmark and of the tiny CLIPs that stand for B/16 and L/14."""

    seed: int = option(7, "of everything that is rendered")
    train_identities: Count = option(24, "people rendered for training")
    test_identities: Count = option(16, "other people, for the protocols")
    frames: Size = option(8, "frames of a tracklet")
    ground_tracklets: Count = option(4, "of one identity, over both sessions")
    capture_points: Annotated[Count, Field(le=18)] = option(
        6, "aerial tracklets of one identity and session, each at its own point"
    )
    changed_share: Share = option(0.5, "share of people who change clothes between sessions")
    captions: Count = option(4000, "rendered crops with captions for the tiny CLIPs")
    clip_epochs: Count = option(4, "epochs of pre-training of a tiny CLIP")


class Report(Section):
    """What the report shows: `reid report`, results/<dataset>/report.html."""

    variant: Name | None = option(None, "row shown in detail; unset: the last that was run")
    faces: Literal["blur", "keep"] = option(
        "blur", "blur the head in every picture of people; it does not anonymize them"
    )
    top: Count = option(10, "gallery tracklets of a ranked list")
    queries: Whole = option(2, "random queries shown beside the best and worst of a protocol")
    seed: Whole = option(0, "of what is drawn at random")
    attention_tracklets: Count = option(
        150, "tracklets whose weights are compared with height and sharpness"
    )


class Runtime(Section):
    """What changes speed, not results: but for `precision`, no part of a stamp."""

    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto takes a GPU if there is one")
    workers: Annotated[Whole, Field(le=1024)] = option(
        2, "data-loading processes; 0 loads in the trainer"
    )
    pack: LocalPath | None = option(None, "folder of `reid pack`: frames are read from there")
    stage_to: str | None = option(None, "disk of the node to copy the pack to, say `$TMPDIR`")
    extract_batch: Size = option(16, "tracklets of an extraction batch (Table 3)")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of forward passes; auto is bf16 on a GPU that has it, else fp32, as the "
        "manifest says; a change trains and extracts again",
    )
    micro_batch: Whole = option(0, "tracklets embedded at a time in stage 2; 0: the whole batch")
    activation_checkpointing: bool = option(False, "recompute blocks in the backward pass")
    compile: bool = option(False, "torch.compile the blocks of the visual tower")
    checkpoint_minutes: Positive = option(10, "between checkpoints within an epoch")
    keep_checkpoints: Count = option(2, "checkpoints kept of each stage")
    tensorboard: bool = option(True, "also write curves for TensorBoard")

    @model_validator(mode="after")
    def _stages_a_pack(self) -> Self:
        if self.stage_to is not None and self.pack is None:
            raise ValueError("stage_to copies the pack: set runtime.pack too, or leave it out")
        return self


class Config(Section):
    """The whole configuration."""

    dataset: Dataset
    results: LocalPath = option(Path("results"), "folder of all results")
    seeds: Annotated[tuple[Whole, ...], AfterValidator(without_repeats)] = option(
        (1,), "every training runs once per seed", min_length=1
    )
    backbones: dict[Name, Backbone] = Field(min_length=1)
    trainings: dict[Name, Training] = Field(min_length=1)
    variants: dict[Name, Variant] = Field(min_length=1)
    tune: Tune = Tune()
    report: Report = Report()
    demo: Demo | None = option(None, "present: the DAG renders its data and weights")
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, training in self.trainings.items():
            _demand_known(training.backbone, self.backbones, f"trainings.{name}.backbone")
        for name, variant in self.variants.items():
            _demand_known(variant.training, self.trainings, f"variants.{name}.training")
            if variant.tuned and self.trainings[variant.training].validation.share == 0:
                raise ValueError(
                    f"variants.{name} is tuned, but trainings.{variant.training} holds no "
                    "identities out: set its validation.share"
                )
        if self.report.variant is not None:
            _demand_known(self.report.variant, self.variants, "report.variant")
        return self


def _demand_known(name: str, table: Mapping[str, Any], key: str) -> None:
    if name not in table:
        raise ValueError(f"{key}: no {name!r}{nearest(name, table)}")

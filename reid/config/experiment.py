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
    without_repeats,
)
from reid.config.training import Training

Protocol = Literal["A2G", "G2A", "A2A", "G2G", "ALL"]

OPEN_CLIP_PREFIX = "open_clip:"


class Dataset(Section):
    """Where the crops lie and how strictly they are read."""

    name: Name = Field("detreidx", description="names the folder under results/")
    root: LocalPath = Field(description="folder of the dataset; with DetReIDX that of train/")
    layout: Literal["detreidx", "mars", "g2a-vreid", "ag-vpreid", "manifest", "folders"] = Field(
        "detreidx", description="convention of folders and file names (docs/DATA.md)"
    )
    manifest: LocalPath | None = Field(
        None, description="CSV of layout `manifest`; unset: manifest.csv in the root"
    )
    protocols: Annotated[tuple[Protocol, ...], AfterValidator(without_repeats)] = Field(
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
    damaged: LocalPath | None = Field(
        None, description="damaged.csv of `reid check`: frames that `index` leaves out, and counts"
    )
    allow_shared_identities: bool = Field(
        False, description="the test set reuses identity numbers of training for other people"
    )


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
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of the weights file; set: another file is refused"
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
    paper: Number | None = Field(None, description="the paper's figure for this row, in %")
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
    capture_points: Annotated[Count, Field(le=18)] = Field(
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
    pack: LocalPath | None = Field(
        None, description="folder that `reid pack` writes; set: frames are read from it, not root"
    )
    stage_to: str | None = Field(
        None, description="copy the pack to this disk of the node first, for example `$TMPDIR`"
    )
    extract_batch: Size = Field(16, description="tracklets of an extraction batch (Table 3)")
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

    @model_validator(mode="after")
    def _stages_a_pack(self) -> Self:
        if self.stage_to is not None and self.pack is None:
            raise ValueError("stage_to copies the pack: set runtime.pack too, or leave it out")
        return self


class Config(Section):
    """The whole configuration."""

    dataset: Dataset
    seeds: Annotated[tuple[Whole, ...], AfterValidator(without_repeats)] = Field(
        (1,), min_length=1, description="every training runs once per seed"
    )
    backbones: dict[Name, Backbone] = Field(min_length=1)
    trainings: dict[Name, Training] = Field(min_length=1)
    variants: dict[Name, Variant] = Field(min_length=1)
    tune: Tune = Tune()
    report: Report = Report()
    demo: Demo | None = Field(None, description="present: the DAG renders its data and weights")
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

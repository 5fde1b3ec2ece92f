"""The steps of the workflow: for every job its outputs, its inputs, and the options it reads.

This is the one list of jobs: the workflow, `reid status`, the table and the report read it. What
a job depends on beside files and options, its code, is in `reid.sources`; how all become one stamp,
in `reid.chain`. An option that is in no job changes no result.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product, starmap
from pathlib import Path
from typing import Any

from reid.claim import MARK
from reid.config import Config, Dataset
from reid.data.holdout import VALIDATION
from reid.paths import Results

ENTRIES = {
    "demo_data": "reid.synthetic.benchmark",
    "demo_weights": "reid.synthetic.pretrain",
    "index": "reid.data.index",
    "stage1": "reid.train.stage1",
    "stage2": "reid.train.stage2",
    "extract": "reid.features.extract",
    "tune": "reid.retrieval.tune",
    "retrieve": "reid.retrieval.retrieve",
    "submission": "reid.retrieval.submission",
    "table": "reid.report.table",
    "report": "reid.report.page",
}
"""The rule of each step and the module in which it starts, in the order of the data."""

TEMPLATES = Path(__file__).parent / "report" / "templates"
"""Of the report: code that is not Python."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow."""

    step: str
    """Its rule, a key of `ENTRIES`."""
    place: tuple[str, ...]
    """Its wildcards, such as training, seed and protocol."""
    outputs: tuple[Path, ...]
    options: Mapping[str, Any]
    """What it reads of the configuration, JSON-able."""
    inputs: Mapping[str, Path]
    """By role: outputs of other jobs, files of the user, the folder of the dataset."""
    command: str
    """What to type after `reid` to run it by hand."""

    @property
    def output(self) -> Path:
        """The first output."""
        return self.outputs[0]

    @property
    def manifest(self) -> Path:
        """What made the outputs, beside the first."""
        return self.output.with_name(f"{self.output.stem}.manifest.json")

    @property
    def name(self) -> str:
        """Step and wildcards, for people."""
        return " ".join([self.step, *self.place])


class Steps:
    """The jobs of an experiment."""

    def __init__(self, config: Config) -> None:
        self.config, self.results = config, Results.of(config)

    def __iter__(self) -> Iterator[Job]:
        """Every job, in the order of the data."""
        config, seeds, protocols = self.config, self.config.seeds, self.config.dataset.protocols
        if config.demo:
            yield self.demo_data()
            yield from map(self.demo_weights, config.backbones)
        yield self.index()
        for owner, seed in product(dict.fromkeys(self.stage1_owners.values()), seeds):
            yield self.stage1(owner, seed)
        for training, seed in product(config.trainings, seeds):
            yield self.stage2(training, seed)
        used = {variant.training for variant in config.variants.values()}
        tuned = [name for name, variant in config.variants.items() if variant.tuned]
        held_out = {config.variants[name].training for name in tuned}
        for training, seed in product([name for name in config.trainings if name in used], seeds):
            for protocol in (*protocols, *[VALIDATION] * (training in held_out)):
                yield self.extract(training, seed, protocol)
        for variant, seed in product(tuned, seeds):
            yield self.tune(variant, seed)
        for variant, seed, protocol in product(config.variants, seeds, protocols):
            yield self.retrieve(variant, seed, protocol)
        yield self.table()
        yield self.report()

    def submissions(self) -> Iterator[Job]:
        """Jobs that run on demand only."""
        yield from starmap(self.submission, product(self.config.variants, self.config.seeds))

    def demo_data(self) -> Job:
        """The rendered dataset."""
        options = _dump(self.config.demo, exclude={"captions", "clip_epochs"})
        rendered = self.config.dataset.root / MARK
        return Job("demo_data", (), (rendered,), options, {}, "demo-data")

    def demo_weights(self, backbone: str) -> Job:
        """A tiny CLIP."""
        options = _dump(self.config.demo, include={"seed", "captions", "clip_epochs"})
        file, verb = Path(self.config.backbones[backbone].weights), "demo-weights --backbone"
        options["backbone"] = backbone
        return Job("demo_weights", (file.stem,), (file,), options, {}, f"{verb} {backbone}")

    def index(self) -> Job:
        """The index, by what is in it: neither the dataset's place nor the tolerated shares."""
        dataset = self.config.dataset
        root = self.demo_data().output if self.config.demo else dataset.root
        inputs = {"dataset": root, **{path.name: path for path in lists_of(dataset)}}
        outputs = tuple(self.results.index(split) for split in ("train", *dataset.protocols))
        options = _dump(dataset, include={"layout", "protocols", "check_sizes"})
        return Job("index", (), outputs, options, inputs, "index")

    @cached_property
    def stage1_owners(self) -> dict[str, str]:
        """For each training the first whose stage 1 is the same: it runs once for all of them."""
        owners: dict[str, str] = {}
        for name in self.config.trainings:
            own = (self._stage1_options(name), self._weights(name))
            same = (
                o for o in owners.values() if (self._stage1_options(o), self._weights(o)) == own
            )
            owners[name] = next(same, name)
        return owners

    def stage(self, training: str, seed: int, stage: int) -> Job:
        """Stage 1 or 2 of a training."""
        return (self.stage1 if stage == 1 else self.stage2)(training, seed)

    def stage1(self, training: str, seed: int) -> Job:
        """Stage 1 of a training, or of the one that it shares it with."""
        owner = self.stage1_owners[training]
        options = {"seed": seed, **self._stage1_options(owner)}
        inputs = {"index": self.results.index("train"), **self._weights(owner)}
        outputs = (self.results.stage(owner, seed, 1),)
        command = f"train stage1 --training {owner} --seed {seed}"
        return Job("stage1", (owner, f"seed{seed}"), outputs, options, inputs, command)

    def stage2(self, training: str, seed: int) -> Job:
        """Stage 2 of a training; the options of stage 1 arrive through its file."""
        options = {
            "seed": seed,
            **self._stage1_options(training),
            **_dump(
                self.config.trainings[training],
                include={"model", "finetune", "augment", "stage2"},
            ),
            "metadata": self.config.dataset.metadata,
        }
        del options["stage1"]
        inputs = {
            "index": self.results.index("train"),
            "stage1": self.stage1(training, seed).output,
            **self._weights(training),
        }
        outputs = (self.results.stage(training, seed, 2),)
        command = f"train stage2 --training {training} --seed {seed}"
        return Job("stage2", (training, f"seed{seed}"), outputs, options, inputs, command)

    def extract(self, training: str, seed: int, protocol: str) -> Job:
        """Features of a protocol's tracklets, or of those that the training holds out."""
        options = {
            "metadata": self.config.dataset.metadata,
            "precision": self.config.runtime.precision,
            "flip": self.flips(training),
            **self._backbone(training),
            **_dump(self.config.trainings[training], include={"clip", "model"}),
        }
        inputs = {
            "index": self.results.index("train" if protocol == VALIDATION else protocol),
            "stage2": self.results.stage(training, seed, 2),
            **self._weights(training),
        }
        outputs = (self.results.features(training, seed, protocol),)
        command = f"extract --training {training} --seed {seed} --protocol {protocol}"
        return Job(
            "extract", (training, f"seed{seed}", protocol), outputs, options, inputs, command
        )

    def flips(self, training: str) -> bool:
        """Whether any variant of a training averages the features of mirrored clips."""
        variants = self.config.variants.values()
        return any(v.flip_tta for v in variants if v.training == training)

    def tune(self, variant: str, seed: int) -> Job:
        """The choice of re-ranking parameters on held-out identities."""
        row = self.config.variants[variant]
        options = {
            "protocols": list(self.config.dataset.protocols),
            "flip_tta": row.flip_tta,
            **_dump(self.config.trainings[row.training], include={"validation"}),
            **_dump(self.config, include={"tune"}),
        }
        features = self.results.features(row.training, seed, VALIDATION)
        inputs = {"index": self.results.index("train"), "features": features}
        outputs = (self.results.tuned(variant, seed),)
        command = f"tune --variant {variant} --seed {seed}"
        return Job("tune", (variant, f"seed{seed}"), outputs, options, inputs, command)

    def retrieve(self, variant: str, seed: int, protocol: str) -> Job:
        """The metrics of a variant on a protocol."""
        inputs = self._ranked(variant, seed, protocol)
        outputs = (self.results.retrieval(variant, seed, protocol),)
        command = f"retrieve --variant {variant} --seed {seed} --protocol {protocol}"
        place, options = (variant, f"seed{seed}", protocol), self._ranking(variant)
        return Job("retrieve", place, outputs, options, inputs, command)

    def submission(self, variant: str, seed: int) -> Job:
        """The challenge's file of a variant; made on demand."""
        inputs = {
            f"{role} {protocol}": path
            for protocol in self.config.dataset.protocols
            for role, path in self._ranked(variant, seed, protocol).items()
        }
        outputs = (self.results.submission(variant, seed),)
        command = f"submission --variant {variant} --seed {seed}"
        place, options = (variant, f"seed{seed}"), self._ranking(variant)
        return Job("submission", place, outputs, options, inputs, command)

    def table(self) -> Job:
        """The ablation table: its rows in order, their texts, the paper's figures."""
        config, results = self.config, self.results
        rows = [[name, _dump(variant)] for name, variant in config.variants.items()]
        options = {"rows": rows, **_dump(config, include={"seeds"})}
        inputs = {
            f"{variant} seed {seed} {protocol}": results.retrieval(variant, seed, protocol)
            for variant, seed, protocol in product(
                config.variants, config.seeds, config.dataset.protocols
            )
        }
        outputs = (*map(results.table, ("csv", "md", "tex")), results.breakdown())
        return Job("table", (), outputs, options, inputs, "table")

    def report(self) -> Job:
        """The page: all of the table, and its own options and templates."""
        table = self.table()
        options = {**table.options, **_dump(self.config, include={"report"})}
        templates = {f"template {path.name}": path for path in sorted(TEMPLATES.iterdir())}
        inputs = {**table.inputs, **templates}
        return Job("report", (), (self.results.report(),), options, inputs, "report")

    def log(self, job: Job) -> Path:
        """What a job of the workflow printed."""
        return self.results.log(*self._path(job))

    def traces(self, job: Job) -> tuple[Path, ...]:
        """What a job leaves beside its outputs whose times Snakemake looks at."""
        drawn = self.results.figures() / ".snakemake_timestamp"
        figures = (drawn,) if job.step == "report" else ()
        return (job.manifest, self.results.benchmark(*self._path(job)), *figures)

    def _path(self, job: Job) -> tuple[str, ...]:
        """Of its log and benchmark: the step, or the path of the output."""
        if not job.place or job.step == "demo_weights":
            return (job.step, *job.place)
        return job.output.relative_to(self.results.root).with_suffix("").parts

    def _stage1_options(self, training: str) -> dict[str, Any]:
        """Stage 1 sees plain CLIP: trainings that agree in these share it."""
        options = self.config.trainings[training]
        return {
            **self._backbone(training),
            "clip": _dump(options.clip, exclude={"test_sampling"}),
            "model": _dump(options.model, include={"stride", "positions"}),
            "precision": self.config.runtime.precision,
            "augment": _dump(options.augment) if options.stage1.view == "augmented" else None,
            **_dump(options, include={"stage1", "validation"}),
        }

    def _backbone(self, training: str) -> dict[str, Any]:
        """Options of the CLIP weights, not their path: a tag of open_clip names its weights."""
        backbone = self.config.backbones[self.config.trainings[training].backbone]
        if backbone.file is None:
            return {"backbone": {"weights": backbone.weights}}
        return {"backbone": {"activation": backbone.activation or "quick_gelu"}}

    def _weights(self, training: str) -> dict[str, Path]:
        file = self.config.backbones[self.config.trainings[training].backbone].file
        return {} if file is None else {"weights": file}

    def _ranked(self, variant: str, seed: int, protocol: str) -> dict[str, Path]:
        row = self.config.variants[variant]
        inputs = {
            "index": self.results.index(protocol),
            "features": self.results.features(row.training, seed, protocol),
        }
        return inputs | ({"tuning": self.results.tuned(variant, seed)} if row.tuned else {})

    def _ranking(self, variant: str) -> dict[str, Any]:
        return _dump(self.config.variants[variant], include={"flip_tta", "rerank", "tuned"})


def lists_of(dataset: Dataset) -> list[Path]:
    """Files that say what a dataset holds, in layouts that have some, and what to leave out."""
    lists = [] if dataset.damaged is None else [dataset.damaged]
    if dataset.layout == "manifest":
        return [*lists, dataset.manifest or dataset.root / "manifest.csv"]
    if dataset.layout in ("mars", "g2a-vreid"):
        return [*lists, *sorted((dataset.root / "info").glob("*"))]
    return lists


def _dump(
    section: Any, *, include: set[str] | None = None, exclude: set[str] | None = None
) -> dict[str, Any]:
    dumped: dict[str, Any] = section.model_dump(mode="json", include=include, exclude=exclude)
    return dumped

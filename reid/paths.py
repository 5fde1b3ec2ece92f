"""Where every artifact lies, in one place: `results/<dataset>/...`."""

from dataclasses import dataclass
from pathlib import Path

from reid.config import Config

SPLITS = ("train", "A2G", "G2A", "A2A", "G2G", "ALL")
"""Names of the index files: training, and one per protocol with its query and gallery."""


@dataclass(frozen=True)
class Results:
    """Paths under the results folder of one dataset."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> "Results":
        """Results of the dataset of a configuration."""
        return cls(config.results / config.dataset.name)

    def config(self, digest: str) -> Path:
        """The whole configuration of a run of the workflow, named by its content."""
        return self.root / "config" / f"{digest}.yaml"

    def stamps(self) -> Path:
        """Folder of what each job depends on, as Snakemake watches it."""
        return self.root / "stamps"

    def stamp(self, step: str, *place: str) -> Path:
        """What a job depends on: its step and wildcards."""
        return self.stamps().joinpath(step, *place[:-1], f"{place[-1] if place else step}.json")

    def index(self, split: str) -> Path:
        """Index of a split: training, or a protocol."""
        return self.root / "index" / f"{split}.parquet"

    def run(self, training: str, seed: int) -> Path:
        """Folder of one training: its weights, their manifests, and its work folders."""
        return self.root / "train" / training / f"seed{seed}"

    def work(self, training: str, seed: int, stage: str, stamp: str) -> Path:
        """Folder of what a trainer keeps to resume a stage: another stamp has another one."""
        return self.run(training, seed) / f"{stage}-{stamp}"

    def stage(self, training: str, seed: int, stage: int) -> Path:
        """Final weights of a training stage."""
        return self.run(training, seed) / f"stage{stage}.safetensors"

    def features(self, training: str, seed: int, split: str) -> Path:
        """Features of every query and gallery tracklet of a protocol."""
        return self.root / "features" / training / f"seed{seed}" / f"{split}.safetensors"

    def tuned(self, variant: str, seed: int) -> Path:
        """Re-ranking parameters chosen for a variant on held-out identities."""
        return self.root / "tune" / variant / f"seed{seed}.json"

    def retrieval(self, variant: str, seed: int, protocol: str) -> Path:
        """Metrics of one variant on one protocol."""
        return self.root / "retrieval" / variant / f"seed{seed}" / f"{protocol}.json"

    def breakdown(self) -> Path:
        """Quality by capture conditions of every variant, beside the table."""
        return self.root / "tables" / "breakdown.csv"

    def submission(self, variant: str, seed: int) -> Path:
        """The challenge's file for a variant: the whole gallery ranked for every query."""
        return self.root / "submission" / variant / f"seed{seed}.csv"

    def report(self) -> Path:
        """The report: one file that a browser opens, also without a network."""
        return self.root / "report.html"

    def figures(self) -> Path:
        """Folder of the report's figures: svg, pdf, and the csv that each was drawn from."""
        return self.root / "figures"

    def benchmark(self, *place: str) -> Path:
        """What Snakemake measured of a job: seconds, memory, load."""
        return self.root.joinpath("benchmarks", *place[:-1], f"{place[-1]}.tsv")

    def log(self, *place: str) -> Path:
        """What a job of the workflow printed."""
        return self.root.joinpath("logs", *place[:-1], f"{place[-1]}.log")

    def table(self, suffix: str) -> Path:
        """The ablation table as csv, md or tex."""
        return self.root / "tables" / f"ablation.{suffix}"

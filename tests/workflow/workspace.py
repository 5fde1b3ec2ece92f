"""A folder in which Snakemake is really run, on the project or on a copy of it."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """
from pathlib import Path
from reid import cli, config
from reid.chain import Chain
from reid.paths import Results

arguments = cli.build_parser().parse_args()
settings = config.load(config.named(arguments))
results = Results.of(settings)
a = arguments
if a.run.__name__ == "stage2" and Path(f"fail-{a.training}").exists():
    raise SystemExit("no luck")
chain = Chain(settings)
seed = getattr(a, "seed", None)
job = {
    "demo_data": lambda: chain.steps.demo_data(),
    "demo_weights": lambda: chain.steps.demo_weights(a.backbone),
    "index": lambda: chain.steps.index(),
    "stage1": lambda: chain.steps.stage1(a.training, seed),
    "stage2": lambda: chain.steps.stage2(a.training, seed),
    "extract": lambda: chain.steps.extract(a.training, seed, a.protocol),
    "tune": lambda: chain.steps.tune(a.variant, seed),
    "retrieve": lambda: chain.steps.retrieve(a.variant, seed, a.protocol),
    "table": lambda: chain.steps.table(),
    "report": lambda: chain.steps.report(),
    "submission": lambda: chain.steps.submission(a.variant, seed),
}[a.run.__name__]()
with chain.record(job, with_gaps=a.run.__name__ in ("table", "report")):
    for path in job.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{job.name}: {job.options}")
    if a.run.__name__ == "report":
        results.figures().mkdir(exist_ok=True)
        (results.figures() / "ablation.svg").write_text("made by a stand-in")
with Path("verbs.txt").open("a") as verbs:
    verbs.write(f"{a.run.__name__}\\n")
"""
"""Takes the place of the verbs where only the workflow is under test: parses the same command
line and the same configuration, and writes the artifacts at once."""


@dataclass(frozen=True)
class Job:
    """A job that Snakemake plans."""

    rule: str
    wildcards: Mapping[str, str]


@dataclass(frozen=True)
class Workspace:
    """A folder in which the commands of a project are run."""

    path: Path
    project: Path = ROOT

    @classmethod
    def copy(cls, path: Path) -> "Workspace":
        """A copy of the project in which the verbs are stood in for."""
        ignore = shutil.ignore_patterns("__pycache__")
        for folder in ("reid", "workflow", "config"):
            shutil.copytree(ROOT / folder, path / folder, ignore=ignore)
        shutil.copy(ROOT / "README.md", path)
        (path / "reid" / "__main__.py").write_text(STAND_IN)
        return cls(path, project=path)

    @property
    def snakefile(self) -> Path:
        """The workflow of the project."""
        return self.project / "workflow" / "Snakefile"

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a module; nothing is raised."""
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(self.project), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def snakemake(self, *arguments: str | Path) -> str:
        """Run Snakemake and return what it printed. Fails the test when Snakemake fails."""
        done = self.command("snakemake", "--snakefile", self.snakefile, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def refused(self, *arguments: str | Path) -> str:
        """What Snakemake prints when it must fail."""
        done = self.command("snakemake", "--snakefile", self.snakefile, *arguments)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def plan(self, *arguments: str | Path) -> list[Job]:
        """The jobs that Snakemake would run, but for the target `all`."""
        jobs = []
        printed = self.snakemake("-n", *arguments)
        for block in re.split(r"\n(?=\[)", printed):
            if rule := re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE):
                found = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
                pairs = found[1].split(", ") if found else []
                jobs.append(Job(rule[1], dict(pair.split("=", 1) for pair in pairs)))
        assert jobs or "Nothing to be done" in printed, printed
        return [job for job in jobs if job.rule != "all"]

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """Replace the one `old` in a file for the time being."""
        path = self.path / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)

    @contextmanager
    def appended(self, name: str, text: str) -> Iterator[None]:
        """Append to a file (or make it) for the time being."""
        path = self.path / name
        before = path.read_text() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((before or "") + text)
        try:
            yield
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_text(before)


def counts(jobs: list[Job]) -> dict[str, int]:
    """How many jobs of each rule."""
    return dict(Counter(job.rule for job in jobs))


def values(jobs: list[Job], rule: str, wildcard: str) -> set[str]:
    """The values that a wildcard takes in the jobs of a rule."""
    return {job.wildcards[wildcard] for job in jobs if job.rule == rule}

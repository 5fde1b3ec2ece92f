"""What only trying tells: Slurm's own verdict on the requests, and a short job on a node."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.doctor import judge
from cluster.doctor.finding import Finding, ok, problem, warn
from cluster.requests import Profile, Request
from reid.config import Config
from reid.files import read_json, write_json

MINUTES = 5
"""Time limit of the test job."""
SLOW_SECONDS = 10.0
"""A file that takes longer to be seen elsewhere needs more patience than the profile has."""


def accepted(profile: Profile) -> Iterator[Finding]:
    """Whether Slurm would take a job of every rule (`sbatch --test-only`)."""
    fine = []
    for request in profile.requests.values():
        done = subprocess.run(
            ["sbatch", "--test-only", *request.options(), "--wrap=true"],
            capture_output=True,
            text=True,
        )
        said = done.stderr.strip().splitlines()
        if done.returncode:
            yield problem(
                f"sbatch for {request.rule}",
                f"refused: {said[-1] if said else 'no reason given'}",
                f"it was asked for {' '.join(request.options())}: change these in {profile.file}",
            )
        else:
            fine.append(request.rule)
    if fine:
        yield ok("sbatch", f"would take {', '.join(fine)}")


def inputs(settings: Config) -> tuple[list[str], list[str], list[str]]:
    """What the jobs read: folders of the dataset, files of weights, and weights by tag."""
    used = {training.backbone for training in settings.trainings.values()}
    backbones = [settings.backbones[name] for name in sorted(used)]
    files = [str(each.file) for each in backbones if each.file is not None]
    tags = [each.weights for each in backbones if each.file is None]
    return [str(settings.dataset.root)], files, tags


def here(settings: Config) -> Iterator[Finding]:
    """Whether dataset and weights are in place, as seen from this machine."""
    roots, files, tags = inputs(settings)
    if settings.demo is not None:
        yield ok("data", "rendered by the workflow itself, weights too")
        return
    for path in roots:
        if Path(path).is_dir():
            yield ok("dataset", f"{path} is a folder")
        else:
            yield problem("dataset", f"{path} is not a folder", "put it there, or set dataset.root")
    for path in files:
        if Path(path).is_file():
            yield ok("weights", f"{path} is a file")
        else:
            yield problem(
                "weights",
                f"{path} is not a file",
                "put it there, or name its file under backbones (README: Data and weights)",
            )
    for tag in tags:
        yield warn(
            "weights",
            f"{tag} comes over the network, which nodes often lack",
            "download the file and name it instead",
        )


@dataclass(frozen=True)
class Trial:
    """The test job, and the folder by which it and the doctor talk."""

    request: Request
    folder: Path
    job: str
    needs_gpu: bool

    @classmethod
    def submit(cls, profile: Profile, settings: Config) -> "Trial | Finding":
        """Submit the test job with the request of stage 2, but for a few minutes."""
        request = replace(profile.requests["stage2"], minutes=MINUTES)
        folder = Path(".snakemake/doctor").absolute() / uuid.uuid4().hex[:8]
        folder.mkdir(parents=True)
        (folder / "token").write_text(folder.name, encoding="utf-8")
        write_json(folder / "report.json", None)
        roots, files, _ = ([], [], []) if settings.demo else inputs(settings)
        write_json(
            folder / "spec.json", {"folder": str(folder), "dataset": roots, "weights": files}
        )
        probe = f"{sys.executable} -m cluster.doctor.probe {folder / 'spec.json'}"
        done = subprocess.run(
            ["sbatch", "--parsable", "--job-name=doctor", f"--output={folder / 'log'}",
             "--no-requeue", *request.options(), f"--wrap=exec srun {probe}"],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return problem("test job", f"refused: {done.stderr.strip()}", "see above")
        needs_gpu = settings.runtime.device != "cpu" and request.gpu_count > 0
        return cls(request, folder, done.stdout.strip().split(";")[0], needs_gpu)

    def follow(self, patience: float) -> Iterator[Finding]:
        """Wait for the job, at most `patience` seconds, and judge what it saw."""
        began = time.monotonic()
        ended: float | None = None
        while (report := read_json(self.folder / "report.json")) is None:
            now = time.monotonic()
            state = self._state()
            if state is None:
                ended = ended or now
                if now - ended > 60:
                    yield self._silent()
                    return
            elif now - began > patience:
                subprocess.run(["scancel", self.job], check=False)
                yield warn(
                    "test job",
                    f"still {state} after {patience:.0f} s",
                    "the cluster is busy, or nothing can run it: `squeue --start` tells when a "
                    "waiting job would start. Try again with a longer --wait, or with --no-job",
                )
                return
            time.sleep(0.2)
        delay = self._delay()
        yield ok("test job", f"{self.job} ran on {report['host']}")
        yield from judge.node(report, token=self.folder.name)
        if self.needs_gpu:
            yield from judge.gpus(report, self.request)
        yield self._visible(delay)

    def _state(self) -> str | None:
        """State and reason of the job; None once it has ended."""
        done = subprocess.run(
            ["squeue", "--noheader", f"--jobs={self.job}", "--format=%T (%r)"],
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() or None

    def _silent(self) -> Finding:
        log = self.folder / "log"
        said = log.read_text(encoding="utf-8").strip() if log.exists() else ""
        if not said:
            return problem(
                "test job",
                f"{self.job} ended without a trace in {self.folder}",
                "the nodes do not see this folder: clone the repository on a file system that "
                "they share with this machine",
            )
        return problem(
            "test job",
            f"{self.job} failed: {said.splitlines()[-1]}",
            f"its log is {log}. The nodes must see this folder and {sys.executable}",
        )

    def _delay(self) -> float:
        """Seconds from the report's writing to now, by the clock of the file system."""
        now = self.folder / "now"
        now.touch()
        return max(0.0, now.stat().st_mtime - (self.folder / "report.json").stat().st_mtime)

    def _visible(self, delay: float) -> Finding:
        found = f"a file of the node was seen here {delay:.1f} s after it was written"
        if delay < SLOW_SECONDS:
            return ok("shared files", found)
        return warn(
            "shared files",
            found,
            f"set latency-wait in the profile to at least {5 * delay:.0f} (seconds)",
        )

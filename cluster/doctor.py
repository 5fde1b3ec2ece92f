"""`python -m cluster.doctor`: can this cluster, as the profile asks it, run the workflow?

CHECKS are functions from what is known about the cluster (Case) to findings. A short job then
looks at a node (`cluster.probe`).
"""

import argparse
import re
import shutil
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cluster import query, requests
from cluster.requests import Profile, Request
from reid import config
from reid.config import Config
from reid.errors import UserError, of_system
from reid.files import read_json, write_json

COMMANDS = ("sbatch", "scontrol", "squeue", "scancel", "srun")
REMEMBERED_SECONDS = 120
"""For so long squeue must know a finished job: twice the longest pause of the executor."""
SAVING_SECONDS = 30
"""In so long a trainer saves with room to spare."""
SLOW_SECONDS = 10.0
"""A file that takes longer to be seen elsewhere needs a longer `latency-wait`."""
UNSEEN_SECONDS = 60
"""A job that has left the queue for so long without a report writes none any more."""

Level = Literal["ok", "warn", "problem"]


class Finding(NamedTuple):
    """What was found about a subject, and what to change where."""

    level: Level
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8} {self.subject}: {self.found}"
        return text + "".join(f"\n         -> {line}" for line in textwrap.wrap(self.advice, 88))


def verdict(
    well: bool, subject: str, good: str, bad: str, advice: str, level: Level = "problem"
) -> Finding:
    """A finding that is ok, or of another level with an advice."""
    return Finding("ok", subject, good) if well else Finding(level, subject, bad, advice)


@dataclass(frozen=True)
class Case:
    """What the checks look at; configuration and partitions as scontrol prints them."""

    cluster: Mapping[str, str]
    partitions: Mapping[str, Mapping[str, str]]
    accounting: bool
    """Whether sacct answers."""
    profile: Profile
    settings: Config

    def seconds(self, key: str) -> int:
        """A time of the cluster's configuration, printed as `30 sec`."""
        return int(self.cluster[key].split()[0])

    def partition(self, request: Request) -> Mapping[str, str] | None:
        """The partition that a request goes to, if it names one that exists, or the default."""
        if "partition" in request.options:
            return self.partitions.get(request.options["partition"])
        return next((p for p in self.partitions.values() if p["Default"] == "YES"), None)


def gather(arguments: argparse.Namespace) -> Case:
    """Ask Slurm and Snakemake. Raises UserError where there is none, or where it is silent."""
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise UserError(
            f"no Slurm here: {', '.join(missing)} not found on PATH: run this where jobs are "
            "submitted, on a login node of the cluster (`module load slurm` at some sites)"
        )
    try:
        query.ask("sacct", "--noheader", "--jobs=1")
        accounting = True
    except UserError:
        accounting = False
    return Case(
        parse_config(query.ask("scontrol", "show", "config")),
        parse_partitions(query.ask("scontrol", "--oneliner", "show", "partition")),
        accounting,
        requests.read(arguments.profile),
        config.load(config.named(arguments)),
    )


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`."""
    return dict(re.findall(r"^(\S+)\s*= (.*?)\s*$", text, re.MULTILINE))


def parse_partitions(text: str) -> dict[str, dict[str, str]]:
    """`scontrol --oneliner show partition`: the fields of each partition by its name."""
    partitions = (dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines())
    return {fields["PartitionName"]: fields for fields in partitions if fields}


def minutes(text: str) -> float:
    """Slurm's `[days-]hours:minutes:seconds` in minutes; infinity for no limit."""
    if text in ("UNLIMITED", "NONE", "INFINITE"):
        return float("inf")
    days, _, clock = text.rpartition("-")
    hours, minute, _ = (int(part) for part in clock.split(":"))
    return 1440 * int(days or 0) + 60 * hours + minute


def end_of_jobs(case: Case) -> Iterator[Finding]:
    """Whether the executor learns how jobs end, and Slurm requeues them and lets them save."""
    remembered, saving = case.seconds("MinJobAge"), case.seconds("KillWait")
    how = "sacct works, also for jobs that squeue has forgotten"
    yield verdict(
        case.accounting or remembered >= REMEMBERED_SECONDS,
        "accounting",
        how if case.accounting else f"none; squeue is enough, MinJobAge {remembered} s",
        f"squeue forgets a finished job after {remembered} s (MinJobAge) and sacct does not "
        "answer: ends of jobs would be missed",
        f"ask the administrators for MinJobAge={REMEMBERED_SECONDS} or for accounting",
    )
    yield verdict(
        case.profile.settings.get("slurm-requeue") or case.cluster["JobRequeue"] == "1",
        "requeue",
        "on",
        "off (JobRequeue=0): a job that is preempted or loses its node counts as failed",
        f"set slurm-requeue: true in {case.profile.file}",
        "warn",
    )
    yield verdict(
        saving >= SAVING_SECONDS,
        "KillWait",
        f"{saving} s to save in after SIGTERM",
        f"only {saving} s between SIGTERM and SIGKILL: steps that are not saved by then are "
        "computed again",
        "nothing is lost at a time limit, where SIGTERM comes early. Against preemption, lower "
        "runtime.checkpoint_minutes in your configuration",
        "warn",
    )


def partitions(case: Case) -> Iterator[Finding]:
    """Whether the partitions are up, and allow the time that is asked for."""
    for request in case.profile.requests.values():
        partition = case.partition(request)
        if partition is None:
            continue  # one of several, or sbatch says why not
        name, longest = partition["PartitionName"], minutes(partition["MaxTime"])
        subject = f"partition of {request.rule}"
        if partition["State"] != "UP":
            found = f"{name} is {partition['State']}"
            yield Finding("problem", subject, found, "wait, or name another")
        if request.minutes > longest:
            yield Finding(
                "problem",
                subject,
                f"{request.minutes} minutes are asked for, {name} allows {longest:.0f}",
                f"set runtime of {request.rule} in {case.profile.file} to at most {longest:.0f}: "
                "a training resumes in the next job; raise retries if it needs many",
            )


def preemption(case: Case) -> Iterator[Finding]:
    """What happens to a job when a more important one takes its place."""
    if case.cluster["PreemptType"] in ("preempt/none", "(null)"):
        yield Finding("ok", "preemption", "never")
        return
    used = filter(None, map(case.partition, case.profile.requests.values()))
    for name, partition in {fields["PartitionName"]: fields for fields in used}.items():
        mode = partition.get("PreemptMode", "OFF")
        yield verdict(
            mode.endswith(("REQUEUE", "OFF")),
            f"preemption in {name}",
            "never" if mode.endswith("OFF") else "the job goes back into the queue",
            f"the job is not put back into the queue (PreemptMode={mode})",
            "name a partition that requeues. With CANCEL, Snakemake submits the job again "
            f"while retries are left: raise retries in {case.profile.file}",
            "warn",
        )


def accepted(case: Case) -> Iterator[Finding]:
    """Whether Slurm would take a job of every rule (`sbatch --test-only`)."""
    fine = []
    for request in case.profile.requests.values():
        command = ["sbatch", "--test-only", *request.sbatch(), "--wrap=true"]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            fine.append(request.rule)
            continue
        partition = case.partition(request)
        which = [f"--partition={partition['PartitionName']}"] if partition else []
        offers = query.ask("sinfo", "-h", *which, "-o", "%R: %c CPUs, %m MB, %G, features %f")
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Finding(
            "problem",
            f"sbatch for {request.rule}",
            f"refused: {reason}",
            f"asked for {' '.join(request.sbatch())}: change it in {case.profile.file}. Nodes "
            f"offer {'; '.join(sorted(set(offers.splitlines())))}",
        )
    if fine:
        yield Finding("ok", "sbatch", f"would take {', '.join(fine)}")


CHECKS: Sequence[Callable[[Case], Iterator[Finding]]] = (
    end_of_jobs,
    partitions,
    preemption,
    accepted,
)


def trial(case: Case, patience: float) -> Iterator[Finding]:
    """Run `cluster.probe` in a job like stage 2's: its findings, and how late its file is seen.

    Gives up after `patience` seconds.
    """
    request = replace(case.profile.requests["stage2"], minutes=5)
    folder = Path(".snakemake/doctor").absolute() / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    gpus = request.gpu_count if case.settings.runtime.device != "cpu" else 0
    write_json(folder / "spec.json", {"paths": _inputs(case.settings), "gpus": gpus})
    look = f"exec srun {sys.executable} -m cluster.probe {folder}"
    name = ("--parsable", "--no-requeue", f"--job-name={folder.name}", f"--output={folder / 'log'}")
    job = query.ask("sbatch", *name, *request.sbatch(), f"--wrap={look}").strip().split(";")[0]
    if (failure := _wait(job, folder, patience)) is not None:
        yield failure
        return
    report = folder / "report.json"
    (folder / "now").touch()  # by the clock of the file system
    delay = max(0.0, (folder / "now").stat().st_mtime - report.stat().st_mtime)
    found: Any = read_json(report)
    yield from (Finding(*finding) for finding in found)
    seen = f"a file of the node was seen here {delay:.1f} s after it was written"
    advice = f"set latency-wait in {case.profile.file} to at least {5 * delay:.0f} (seconds)"
    yield verdict(delay < SLOW_SECONDS, "shared files", seen, seen, advice, "warn")


def _inputs(settings: Config) -> dict[str, list[str]]:
    """What the jobs read: the dataset's folder and files of weights. A demo makes its own."""
    if settings.demo:
        return {}
    used = sorted({training.backbone for training in settings.trainings.values()})
    files = [settings.backbones[name].file for name in used]
    weights = [str(file) for file in files if file is not None]
    return {"dataset": [str(settings.dataset.root)], "weights": weights}


def _wait(job: str, folder: Path, patience: float) -> Finding | None:
    """Wait for the report of a test job; a finding if there will be none."""
    log = folder / "log"
    began = last_seen = time.monotonic()
    while not (folder / "report.json").exists():
        queued = query.jobs(f"--name={folder.name}")
        now = time.monotonic()
        last_seen = now if queued else last_seen
        if now - last_seen > UNSEEN_SECONDS:
            how = "with an error" if log.exists() and log.stat().st_size else "without a trace"
            return Finding(
                "problem",
                "test job",
                f"{job} ended {how}: see {log}",
                f"the nodes must see {folder} and {sys.executable}: put both on a file system that "
                "they share with this machine",
            )
        if queued and now - began > patience:
            subprocess.run(["scancel", job], check=False)
            return Finding(
                "warn",
                "test job",
                f"still {queued[0].state} ({queued[0].reason}) after {patience:.0f} s",
                "`squeue --start` says when a waiting job would start. Try again with a longer "
                "--wait, or with --no-job",
            )
        time.sleep(0.2)
    return None


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """All findings, as they come. Raises UserError where nothing can be looked at."""
    case = gather(arguments)
    version, name = case.cluster["SLURM_VERSION"], case.cluster["ClusterName"]
    yield Finding("ok", "Slurm", f"{version} answers; cluster {name}")
    for check in CHECKS:
        yield from check(case)
    if arguments.job:
        yield from trial(case, 60 * arguments.wait)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.doctor",
        description="Say whether this cluster, as the profile asks it, can run the workflow, and "
        "what to change where. Submits one short job. Exits with 1 if there is a problem.",
        epilog="example: python -m cluster.doctor --configfile my.yaml",
    )
    config.add_flags(parser)
    parser.add_argument("--profile", default="slurm", help="as for snakemake (slurm)")
    parser.add_argument("--no-job", dest="job", action="store_false", help="submit no test job")
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="MINUTES", help="for the test job (10)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; 1 if there is a problem, or where nothing can be looked at."""
    arguments = build_parser().parse_args(argv)
    levels = []
    try:
        for finding in examine(arguments):
            print(finding, flush=True)
            levels.append(finding.level)
    except (UserError, OSError) as error:
        print(
            f"error: {of_system(error) if isinstance(error, OSError) else error}", file=sys.stderr
        )
        return 1
    problems, warnings = levels.count("problem"), levels.count("warn")
    print(f"{problems} problem(s), {warnings} warning(s)" if problems + warnings else "all is well")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())

"""What the workflow asks Slurm for, rule by rule: read from Snakemake's own plan.

Rules, profiles and the command line all have a say in a job's resources. Only Snakemake knows
what comes of it, so it is asked, on the embedded benchmark: it plans without any data in place.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reid.errors import UserError
from reid.files import read_yaml

EVERY_RULE = ("config/tuned.yaml", "config/demo.yaml")
"""With these configurations every rule is in the plan."""


@dataclass(frozen=True)
class Request:
    """The resources of a rule's jobs; None or 0 where nothing is asked for.

    CPUs and GPUs count for the whole job, memory (MiB) for each of its nodes.
    """

    rule: str
    minutes: int | None
    cpus: int
    mem_mb: int | None
    gpus: int = 0
    gpu_model: str | None = None
    gres: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1

    @property
    def gpu_count(self) -> int:
        """GPUs of the whole job, however they are asked for."""
        if self.gpus or self.gres is None:
            return self.gpus
        *_, last = self.gres.split(":")
        return self.nodes * (int(last) if last.isdigit() else 1)

    def with_gpus(self, count: int, *, nodes: int) -> "Request":
        """The same for each of `count` GPUs on `nodes` nodes: CPUs and memory grow with them.

        Raises UserError if the GPUs cannot be shared out evenly.
        """
        if count % nodes:
            raise UserError(f"--gpus {count}: must be a multiple of --nodes {nodes}")
        if not self.gpu_count:
            raise UserError(f"{self.rule} asks for no GPU in the profile: nothing to multiply")
        per_gpu = self.cpus // self.gpu_count
        memory = None if self.mem_mb is None else self.mem_mb // self.gpu_count * count // nodes
        more = replace(self, cpus=per_gpu * count, mem_mb=memory, nodes=nodes)
        if self.gpus or self.gres is None:
            return replace(more, gpus=count)
        *name, last = self.gres.split(":")
        name = name if last.isdigit() else [*name, last]
        return replace(more, gres=":".join([*name, str(count // nodes)]))

    def options(self) -> list[str]:
        """The options of sbatch that ask for it."""
        model = f"{self.gpu_model}:" if self.gpu_model else ""
        asked = {
            "time": self.minutes,
            "cpus-per-task": self.cpus,
            "mem": f"{self.mem_mb}M" if self.mem_mb else None,
            "gpus": f"{model}{self.gpus}" if self.gpus else None,
            "gres": self.gres,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
        }
        return [f"--{name}={value}" for name, value in asked.items() if value is not None]


@dataclass(frozen=True)
class Profile:
    """A Snakemake profile for Slurm, and the requests that it leads to."""

    file: Path
    settings: Mapping[str, Any]
    requests: Mapping[str, Request]

    @property
    def on_gpu(self) -> list[Request]:
        """The requests for GPUs."""
        return [each for each in self.requests.values() if each.gpus or each.gres]


def read(name: str = "slurm") -> Profile:
    """The profile `name` of `snakemake --profile`. Raises UserError where it cannot be used."""
    folder = Path(name)
    files = [folder] if folder.is_file() else [folder / f"{stem}.yaml" for stem in FILES]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        raise UserError(f"{name}: no profile here: run this from the root of the repository")
    return Profile(file, read_yaml(file), planned(name))


FILES = ("profile", "config")


def planned(profile: str) -> dict[str, Request]:
    """The request of every rule that is submitted. Raises UserError where the plan fails."""
    command = [sys.executable, "-m", "snakemake", "--profile", profile, "--dry-run", "--forceall"]
    done = subprocess.run(
        [*command, "--configfile", *EVERY_RULE], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"`{' '.join(command[2:])}` fails: {' '.join(reason)}")
    return {request.rule: request for request in parse(done.stdout + done.stderr)}


def parse(plan: str) -> Iterator[Request]:
    """The requests in what a dry run prints. Local rules, which alone name no CPUs, have none."""
    for block in re.split(r"\n(?=\[)", plan):
        rule = re.search(r"^rule (\w+):$", block, re.MULTILINE)
        line = re.search(r"^    resources: (.*)$", block, re.MULTILINE)
        if rule and line:
            found = dict(pair.split("=", 1) for pair in line[1].split(", ") if "=" in pair)
            if "cpus_per_task" in found:
                yield _request(rule[1], found)


def _request(rule: str, found: Mapping[str, str]) -> Request:
    def number(name: str) -> int | None:
        return int(found[name]) if name in found else None

    return Request(
        rule=rule,
        minutes=number("runtime"),
        cpus=int(found["cpus_per_task"]),
        mem_mb=number("mem_mb"),
        gpus=number("gpu") or 0,
        gpu_model=found.get("gpu_model"),
        gres=found.get("gres"),
        partition=found.get("slurm_partition"),
        account=found.get("slurm_account"),
        qos=found.get("qos"),
        constraint=found.get("constraint"),
        nodes=number("nodes") or 1,
    )

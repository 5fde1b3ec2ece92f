"""What the workflow asks Slurm for, rule by rule: read from Snakemake's own plan.

Rules, profiles and the command line all determine a job's resources, and only Snakemake combines
them. It is asked for a dry run of the embedded benchmark, which needs no data in place.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reid.errors import UserError
from reid.files import read_yaml

EVERY_RULE = ("config/tuned.yaml", "config/demo.yaml")
"""With these configurations every rule is in the plan."""


OPTIONS = {
    "slurm_partition": "partition",
    "slurm_account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "gres": "gres",
}
"""Resources of Snakemake, and the options of sbatch that ask for them."""


@dataclass(frozen=True)
class Request:
    """The resources of a rule's jobs: CPUs of the whole job, memory (MiB) of each node.

    `options` are further ones of sbatch by name, among them `gpus` (of the whole job, such as
    `a100:4`) or `gres` (of each node, such as `gpu:a100:4`).
    """

    rule: str
    minutes: int
    cpus: int
    mem_mb: int
    nodes: int = 1
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpu_count(self) -> int:
        """GPUs of the whole job, whether by `gpus` or by `gres`."""
        for name, times in (("gpus", 1), ("gres", self.nodes)):
            if name in self.options:
                count = re.search(r"(?:^|:)(\d+)$", self.options[name])
                return times * (int(count[1]) if count else 1)
        return 0

    def with_gpus(self, count: int, *, nodes: int) -> "Request":
        """The same for `count` GPUs on `nodes` nodes: CPUs and memory grow with them.

        Raises UserError if the GPUs cannot be shared out evenly.
        """
        if count % nodes:
            raise UserError(f"--gpus {count}: must be a multiple of --nodes {nodes}")
        if not self.gpu_count:
            raise UserError(f"{self.rule} asks for no GPU in the profile: nothing to multiply")
        name, number = ("gpus", count) if "gpus" in self.options else ("gres", count // nodes)
        kind = re.sub(r"(^|:)\d+$", "", self.options[name])
        return replace(
            self,
            cpus=self.cpus // self.gpu_count * count,
            mem_mb=self.mem_mb // self.gpu_count * count // nodes,
            nodes=nodes,
            options={**self.options, name: f"{kind}:{number}" if kind else str(number)},
        )

    def sbatch(self) -> list[str]:
        """The options of sbatch that ask for it."""
        size = {"time": self.minutes, "cpus-per-task": self.cpus, "mem": f"{self.mem_mb}M"}
        asked = {**size, "nodes": self.nodes, **self.options}
        return [f"--{name}={value}" for name, value in asked.items()]


@dataclass(frozen=True)
class Profile:
    """A Snakemake profile for Slurm, and the requests that it leads to."""

    file: Path
    settings: Mapping[str, Any]
    requests: Mapping[str, Request]


def read(name: str = "slurm") -> Profile:
    """The profile `name` of `snakemake --profile`. Raises UserError where it cannot be used."""
    candidates = (Path(name), Path(name, "profile.yaml"), Path(name, "config.yaml"))
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise UserError(f"{name}: no profile here: run this from the root of the repository")
    return Profile(file, read_yaml(file), planned(name))


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
        asked = dict(re.findall(r"(\w+)=(.*?)(?:, |$)", line[1])) if line else {}
        if rule is None or "cpus_per_task" not in asked:
            continue
        options = {option: asked[name] for name, option in OPTIONS.items() if name in asked}
        if asked.get("gpu", "0") != "0":
            model = f"{asked['gpu_model']}:" if "gpu_model" in asked else ""
            options["gpus"] = f"{model}{asked['gpu']}"
        yield Request(
            rule=rule[1],
            minutes=int(asked["runtime"]),
            cpus=int(asked["cpus_per_task"]),
            mem_mb=int(asked["mem_mb"]),
            nodes=int(asked.get("nodes", 1)),
            options=options,
        )

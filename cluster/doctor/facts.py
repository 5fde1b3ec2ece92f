"""What Slurm says about itself, read from the text of scontrol: every version prints it."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from reid.errors import UserError

COMMANDS = ("sbatch", "scontrol", "squeue", "scancel", "srun")
UNUSABLE = (
    "DOWN",
    "DRAIN",
    "FAIL",
    "MAINT",
    "NOT_RESPONDING",
    "UNKNOWN",
    "POWERED_DOWN",
    "PLANNED",
)
"""Node states, or parts of them, in which a node starts no job; it may come back."""


@dataclass(frozen=True)
class Partition:
    """A partition; None stands for no limit."""

    name: str
    default: bool
    up: bool
    max_minutes: int | None
    max_nodes: int | None
    accounts: tuple[str, ...] | None
    qos: tuple[str, ...] | None
    preempt_mode: str


@dataclass(frozen=True)
class Node:
    """A node. GPUs are counted by model; "" where the cluster names none."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    mem_mb: int
    gpus: Mapping[str, int]
    features: tuple[str, ...]
    usable: bool


@dataclass(frozen=True)
class Cluster:
    """Everything the checks look at."""

    config: Mapping[str, str]
    partitions: tuple[Partition, ...]
    nodes: tuple[Node, ...]
    accounting: bool
    """Whether sacct answers."""

    def seconds(self, key: str) -> int:
        """A time of the configuration, printed as `30 sec`."""
        return int(self.config[key].split()[0])


def gather() -> Cluster:
    """Ask Slurm. Raises UserError where there is none, or where it does not answer."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"no Slurm here: {', '.join(missing)} not found on PATH: run this where jobs are "
            "submitted, on a log-in node of the cluster (`module load slurm` at some sites)"
        )
    return Cluster(
        parse_config(ask("scontrol", "show", "config")),
        parse_partitions(ask("scontrol", "--oneliner", "show", "partition")),
        parse_nodes(ask("scontrol", "--oneliner", "show", "node")),
        accounting=_run("sacct", "--noheader", "--jobs=1").returncode == 0,
    )


def ask(*command: str) -> str:
    """What a command of Slurm prints. Raises UserError if it fails."""
    done = _run(*command)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` fails: {done.stderr.strip()}: is Slurm running?")
    return done.stdout


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} not found")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no answer within two minutes")


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """`scontrol --oneliner show partition`."""
    return tuple(
        Partition(
            name=fields["PartitionName"],
            default=fields["Default"] == "YES",
            up=fields["State"] == "UP",
            max_minutes=minutes(fields["MaxTime"]),
            max_nodes=_count(fields["MaxNodes"]),
            accounts=_names(fields.get("AllowAccounts", "ALL")),
            qos=_names(fields.get("AllowQos", "ALL")),
            preempt_mode=fields.get("PreemptMode", "OFF"),
        )
        for fields in map(_fields, text.splitlines())
        if "PartitionName" in fields
    )


def parse_nodes(text: str) -> tuple[Node, ...]:
    """`scontrol --oneliner show node`."""
    return tuple(
        Node(
            name=fields["NodeName"],
            partitions=tuple(fields.get("Partitions", "").split(",")),
            cpus=int(fields.get("CPUEfctv", fields["CPUTot"])),
            mem_mb=int(fields["RealMemory"]),
            gpus=parse_gres(fields["Gres"]),
            features=_names(fields["ActiveFeatures"], nothing="(null)") or (),
            usable=not any(word in fields["State"] for word in UNUSABLE),
        )
        for fields in map(_fields, text.splitlines())
        if "NodeName" in fields
    )


def parse_gres(text: str) -> dict[str, int]:
    """GPUs by model in a node's Gres, such as `gpu:a100:4(S:0,1),nvme:1`."""
    found: Counter[str] = Counter()
    for item in re.sub(r"\(.*?\)", "", text).split(","):
        if match := re.fullmatch(r"gpu(?::([^:]+))??(?::(\d+))?", item):
            found[match[1] or ""] += int(match[2] or 1)
    return dict(found)


def minutes(text: str) -> int | None:
    """Slurm's `[days-]hours:minutes:seconds` in minutes; None for no limit."""
    if text in ("UNLIMITED", "NONE", "INFINITE"):
        return None
    days, _, clock = text.rpartition("-")
    hours, minute, _ = (int(part) for part in clock.split(":"))
    return 1440 * int(days or 0) + 60 * hours + minute


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", line))


def _names(text: str, nothing: str = "ALL") -> tuple[str, ...] | None:
    return None if text == nothing else tuple(text.split(","))


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None

"""Run Snakemake itself, or one stage of one training, as a job of its own.

    python -m cluster.launch controller -- --configfile my.yaml
    python -m cluster.launch stage2 --training scaled

For sites that forbid long processes on the login node, and for work without Snakemake. Both go
back into the queue before their time limit, and resume. docs/LAUNCH.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which

import submitit

from cluster import requests
from cluster.requests import Request
from cluster.work import Controller, Stage, Work
from reid import config
from reid.errors import UserError, of_system

LOGS = Path(".snakemake/launch")
SPARE_SECONDS = 30
"""Of the notice before the time limit, what is kept for the way back into the queue."""
FOREVER = 10_000
"""How often a job may run out of time: it makes progress each time."""


def launch(
    work: Work, request: Request, arguments: argparse.Namespace, *, name: str, tasks: int = 1
) -> "submitit.Job[None]":
    """Hand `work` to submitit: `tasks` processes that share the CPUs and GPUs of the request.

    Waits for work that runs on this machine. Raises UserError if Slurm refuses, or that fails.
    """
    launcher = submitit.AutoExecutor(
        Path.cwd() / LOGS / "%j", cluster=arguments.executor, slurm_max_num_timeout=FOREVER
    )
    cpus = request.cpus // tasks
    launcher.update_parameters(
        name=name,
        timeout_min=request.minutes,
        mem_gb=request.mem_mb / 1024,
        nodes=request.nodes,
        tasks_per_node=tasks // request.nodes,
        cpus_per_task=cpus,
        stderr_to_stdout=True,
        slurm_signal_delay_s=arguments.notice,
        slurm_additional_parameters={"requeue": True, **request.options},
        slurm_srun_args=[f"--cpus-per-task={cpus}"],  # which srun no longer takes from sbatch
    )
    try:
        job = launcher.submit(work)
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"sbatch refuses: {str(error).strip().splitlines()[-1]}") from None
    log = job.paths.stdout
    if arguments.executor == "slurm":
        print(f"job {job.job_id} submitted; its log: tail -F {log}")
    elif arguments.executor == "debug":
        job.result()
    else:
        print(f"process {job.job_id} started; its log: {log}", flush=True)
        while not job.done():
            time.sleep(0.2)
        print(log.read_text(encoding="utf-8"), end="")
        if failure := job.exception():
            raise UserError(f"it failed: {str(failure).strip().splitlines()[-1]}")
    return job


def controller(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    """Launch Snakemake with the arguments after `--`."""
    request = _request("index", arguments)
    snakemake = ["--profile", arguments.profile, *rest]
    work = Controller(Path.cwd(), snakemake, grace=_grace(arguments.notice))
    job = launch(work, replace(request, cpus=2), arguments, name="xfd-reid")
    if arguments.executor == "slurm":
        print(f"to stop it and its jobs: scancel --signal=INT {job.job_id}")


def stage(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    """Launch one stage of one training."""
    if rest:
        raise UserError(f"unexpected after --: {' '.join(rest)}")
    work = Stage(Path.cwd(), _verb(arguments), grace=_grace(arguments.notice))
    request = _request(arguments.stage, arguments)
    if arguments.gpus is not None:
        request = request.with_gpus(arguments.gpus, nodes=arguments.nodes)
    tasks = max(1, request.gpu_count) if arguments.stage == "stage2" else 1
    launch(work, request, arguments, name=f"{arguments.stage}-{arguments.training}", tasks=tasks)


def _verb(arguments: argparse.Namespace) -> list[str]:
    files = config.named(arguments)
    settings = config.load(files)
    if arguments.training not in settings.trainings:
        near = config.nearest(arguments.training, list(settings.trainings))
        raise UserError(f"--training: no training {arguments.training!r}{near}")
    seed = settings.seeds[0] if arguments.seed is None else arguments.seed
    if arguments.stage == "extract":
        verb = ["extract", "--protocol", arguments.protocol]
    else:
        verb = ["train", arguments.stage, "--wait", "5"]
    verb += ["--training", arguments.training, "--seed", str(seed)]
    return verb + [part for file in files for part in ("--config", str(file))]


def _grace(notice: int) -> float:
    return max(notice / 2, notice - SPARE_SECONDS)


def _request(rule: str, arguments: argparse.Namespace) -> Request:
    """What the profile asks for a rule, with what the command line says instead."""
    request = requests.read(arguments.profile).requests[rule]
    given = {name: getattr(arguments, name) for name in ("partition", "account", "qos")}
    options = {**request.options, **{name: value for name, value in given.items() if value}}
    return replace(request, minutes=arguments.minutes or request.minutes, options=options)


def build_parser() -> argparse.ArgumentParser:
    """The command line, up to `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--executor",
        choices=("slurm", "local", "debug"),
        default="slurm",
        help="a job of Slurm (default); a process here; this process, for a debugger",
    )
    common.add_argument("--minutes", type=int, help="time limit, instead of the profile's")
    for option in ("partition", "account", "qos"):
        common.add_argument(f"--{option}", help="instead of the profile's")
    common.add_argument(
        "--notice",
        type=int,
        default=120,
        metavar="SECONDS",
        help="stop and requeue this long before the time limit (120); Slurm may be a minute early",
    )
    common.add_argument("--profile", default="slurm", help="as for snakemake (slurm)")
    verbs = parser.add_subparsers(title="what to run", metavar="WHAT", required=True)
    child = verbs.add_parser(
        "controller",
        parents=[common],
        help="Snakemake, with the arguments after `--`",
        epilog=f"example: {parser.prog} controller --minutes 10080 -- --configfile my.yaml",
    )
    child.set_defaults(run=controller)
    for name in ("stage1", "stage2", "extract"):
        protocol = " --protocol A2G" if name == "extract" else ""
        child = verbs.add_parser(
            name,
            parents=[common],
            help=f"{name} of one training",
            epilog=f"example: {parser.prog} {name} --training scaled{protocol}",
        )
        child.set_defaults(run=stage, stage=name, gpus=None, nodes=1)
        child.add_argument("--training", required=True, help="key of `trainings`")
        child.add_argument("--seed", type=int, help="one of `seeds`; the first without it")
        config.add_flags(child)
        if name == "extract":
            child.add_argument("--protocol", required=True, help="one of them, or `validation`")
        if name == "stage2":
            child.add_argument("--gpus", type=int, help="train on so many, one process each")
            child.add_argument("--nodes", type=int, help="spread them over so many nodes (1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Launch what the command line says; 0, or 1 after one line that says why not."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    arguments = build_parser().parse_args(given[:cut])
    try:
        if arguments.executor == "slurm" and not (which("sbatch") and which("srun")):
            raise UserError("no Slurm here (sbatch, srun): try --executor local")
        arguments.run(arguments, given[cut + 1 :])
    except (UserError, OSError) as error:
        print(
            f"error: {of_system(error) if isinstance(error, OSError) else error}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

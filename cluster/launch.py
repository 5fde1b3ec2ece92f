"""Run Snakemake itself, or one stage of one training, as a job of its own.

    python -m cluster.launch controller -- --configfile my.yaml
    python -m cluster.launch stage2 --training scaled

For sites that forbid long processes on the log-in node, and for work without Snakemake. Both go
back into the queue before their time is up and go on where they were. docs/LAUNCH.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which

import submitit

from cluster import configs, requests
from cluster.requests import Request
from cluster.work import Controller, Stage
from reid import config
from reid.config import Config
from reid.errors import UserError, of_system

LOGS = Path(".snakemake/launch")
SPARE_SECONDS = 30
"""Of the notice before the time limit, what is kept for the way back into the queue."""
FOREVER = 10_000
"""How often a job may run out of time: it makes progress each time."""


def submit(
    work: Controller | Stage, request: Request, *, executor: str, name: str, tasks: int, notice: int
) -> "submitit.Job[None]":
    """Hand `work` to submitit: `tasks` processes that share the CPUs and GPUs of the request.

    `notice`: seconds before the time limit at which it is told. Raises UserError if Slurm refuses.
    """
    only_slurm = {"slurm_max_num_timeout": FOREVER}
    folder = Path.cwd() / LOGS / "%j"
    launcher = submitit.AutoExecutor(folder=folder, cluster=executor, **only_slurm)
    cpus = request.cpus // tasks
    special: dict[str, object] = {"requeue": True}
    if request.gpus:
        model = f"{request.gpu_model}:" if request.gpu_model else ""
        special["gpus"] = f"{model}{request.gpus}"
    launcher.update_parameters(
        name=name,
        timeout_min=request.minutes,
        mem_gb=None if request.mem_mb is None else request.mem_mb / 1024,
        nodes=request.nodes,
        tasks_per_node=tasks // request.nodes,
        cpus_per_task=cpus,
        stderr_to_stdout=True,
        slurm_partition=request.partition,
        slurm_account=request.account,
        slurm_qos=request.qos,
        slurm_constraint=request.constraint,
        slurm_gres=request.gres,
        slurm_signal_delay_s=notice,
        slurm_additional_parameters=special,
        slurm_srun_args=[f"--cpus-per-task={cpus}"],  # which srun no longer takes from sbatch
    )
    try:
        return launcher.submit(work)
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"sbatch refuses: {str(error).strip().splitlines()[-1]}") from None


def follow(job: "submitit.Job[None]", executor: str) -> None:
    """Say where a job of Slurm is to be watched; wait for one that runs here.

    Raises UserError if that fails.
    """
    log = job.paths.stdout
    if executor == "slurm":
        print(f"job {job.job_id} submitted; its log: tail -F {log}")
        return
    if executor == "debug":
        job.result()
        return
    print(f"process {job.job_id} started; its log: {log}", flush=True)
    while not job.done():
        time.sleep(0.2)
    print(log.read_text(encoding="utf-8"), end="")
    if error := job.exception():
        raise UserError(f"it failed: {str(error).strip().splitlines()[-1]}")


def controller(arguments: argparse.Namespace, snakemake: Sequence[str]) -> None:
    """Launch Snakemake with the arguments after `--`."""
    asked = _overridden(requests.read(arguments.profile).requests["index"], arguments)
    asked = replace(asked, cpus=2, gpus=0, gpu_model=None, gres=None)
    work = Controller(
        Path.cwd(),
        ["--profile", arguments.profile, *snakemake],
        grace=_grace(arguments.notice),
    )
    job = submit(
        work, asked, executor=arguments.executor, name="xfd-reid", tasks=1, notice=arguments.notice
    )
    if arguments.executor == "slurm":
        print(f"to stop it and its jobs: scancel --signal=INT {job.job_id}")
    follow(job, arguments.executor)


def stage(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    """Launch one stage of one training."""
    if rest:
        raise UserError(f"unexpected after --: {' '.join(rest)}")
    files = configs.named(arguments)
    settings = config.load(files)
    verb = [*_verb(arguments, settings), *_flags("--config", files)]
    asked = _overridden(requests.read(arguments.profile).requests[arguments.stage], arguments)
    if arguments.gpus is not None:
        asked = asked.with_gpus(arguments.gpus, nodes=arguments.nodes)
    tasks = max(1, asked.gpu_count) if arguments.stage == "stage2" else 1
    job = submit(
        Stage(Path.cwd(), verb, grace=_grace(arguments.notice)),
        asked,
        executor=arguments.executor,
        name=f"{arguments.stage}-{arguments.training}",
        tasks=tasks,
        notice=arguments.notice,
    )
    follow(job, arguments.executor)


def _verb(arguments: argparse.Namespace, settings: Config) -> list[str]:
    if arguments.training not in settings.trainings:
        near = config.nearest(arguments.training, list(settings.trainings))
        raise UserError(f"--training: no training {arguments.training!r}{near}")
    seed = settings.seeds[0] if arguments.seed is None else arguments.seed
    if arguments.stage == "extract":
        verb = ["extract", "--protocol", arguments.protocol]
    else:
        verb = ["train", arguments.stage, "--wait", "5"]
    return [*verb, "--training", arguments.training, "--seed", str(seed)]


def _flags(name: str, values: Sequence[Path]) -> list[str]:
    return [part for value in values for part in (name, str(value))]


def _grace(notice: int) -> float:
    return max(notice / 2, notice - SPARE_SECONDS)


def _overridden(request: Request, arguments: argparse.Namespace) -> Request:
    names = ("minutes", "partition", "account", "qos")
    given = {name: getattr(arguments, name) for name in names}
    return replace(request, **{name: value for name, value in given.items() if value is not None})


def build_parser() -> argparse.ArgumentParser:
    """The command line, up to `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="what to run", metavar="WHAT", required=True)

    def add(name: str, summary: str, *, example: str) -> argparse.ArgumentParser:
        child = verbs.add_parser(
            name, help=summary, description=summary, epilog=f"example: {parser.prog} {example}"
        )
        child.add_argument(
            "--executor",
            choices=("slurm", "local", "debug"),
            default="slurm",
            help="a job of Slurm (default); a process here; this process, for a debugger",
        )
        child.add_argument("--profile", default="slurm", help="where resources come from (slurm)")
        child.add_argument("--minutes", type=int, help="time limit, instead of the profile's")
        for option in ("partition", "account", "qos"):
            child.add_argument(f"--{option}", help="instead of the profile's")
        child.add_argument(
            "--notice",
            type=int,
            default=120,
            metavar="SECONDS",
            help="stop and go back into the queue this long before the time limit (120); Slurm "
            "may be up to a minute early",
        )
        return child

    child = add(
        "controller",
        "Snakemake, with the arguments after `--`",
        example="controller --minutes 10080 -- --configfile my.yaml",
    )
    child.set_defaults(run=controller)
    for name in ("stage1", "stage2", "extract"):
        protocol = " --protocol A2G" if name == "extract" else ""
        child = add(name, f"{name} of one training", example=f"{name} --training scaled{protocol}")
        child.set_defaults(run=stage, stage=name, gpus=None, nodes=1)
        child.add_argument("--training", required=True, help="key of `trainings`")
        child.add_argument("--seed", type=int, help="one of `seeds`; the first without it")
        configs.add_flags(child)
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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {of_system(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

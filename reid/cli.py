"""The `reid` command: parse the arguments, run one verb, turn errors into one line."""

import argparse
import io
import os
import select
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from reid import __version__, config, verbs
from reid.config import Config
from reid.data.holdout import VALIDATION
from reid.errors import Unresumable, UserError, of_memory, of_system
from reid.paths import Results
from reid.sources import demand_one_checkout


def _check_names(settings: Config, arguments: argparse.Namespace) -> None:
    """Names on the command line must be in the configuration. Raises UserError."""
    tables: dict[str, Iterable[object]] = {
        "backbone": settings.backbones,
        "training": settings.trainings,
        "variant": settings.variants,
        "seed": settings.seeds,
        "protocol": settings.dataset.protocols,
    }
    if arguments.run is verbs.extract:
        tables["protocol"] = (*settings.dataset.protocols, VALIDATION)
    for kind, known in tables.items():
        name = getattr(arguments, kind, None)
        if name is not None and name not in list(known):
            raise UserError(
                f"--{kind}: no {kind} {name!r} among the {kind}s of the configuration"
                f"{config.nearest(str(name), list(map(str, known)))}"
            )


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, from `reid.verbs`."""
    parser = argparse.ArgumentParser(
        prog="reid",
        description="Extreme far-distance video person re-identification, step by step. "
        "`snakemake` runs all steps in order.",
    )
    parser.add_argument("--version", action="version", version=f"xfd-reid {__version__}")
    top = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    stages = None
    for command in verbs.COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and stages is None:
            stages = top.add_parser(group, help="train stage 1 or stage 2").add_subparsers(
                title="stages", metavar="STAGE", required=True
            )
        summary = (command.run.__doc__ or "\n").splitlines()[0]  # none with python -OO
        child = (stages if group and stages else top).add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example: reid {command.name} {command.example}".rstrip(),
        )
        child.set_defaults(run=command.run, command=command.name)
        config.add_flags(child)
        for names, settings in command.options:
            child.add_argument(*names, **settings)
    return parser


def _restart(arguments: argparse.Namespace) -> str:
    """The command that trains the same stage from its beginning."""
    files = [part for path in arguments.configs for part in ("--config", str(path))]
    run = ["--training", arguments.training, "--seed", str(arguments.seed), "--restart"]
    return shlex.join(["reid", *arguments.command.split(), *files, *run])


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout is gone, as after `| head`; stdout is /dev/null then."""
    printed = select.poll()
    printed.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in printed.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or that of the error it printed in one line.

    1: bad input, or an error of the operating system (REID_TRACEBACK=1 shows its traceback);
    75: stopped and saved, run it again to resume; 76: another trainer holds the folder;
    130: interrupted from the keyboard.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale may lack letters that tables have
            stream.reconfigure(errors="backslashreplace")
    # Before torch is imported: threads that wait by spinning starve other jobs of the node.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = build_parser().parse_args(argv)
    arguments.configs = config.named(arguments)
    near = "results/"
    try:
        demand_one_checkout(Path.cwd())
        settings = config.load(arguments.configs)
        near = str(Results.of(settings).root)
        _check_names(settings, arguments)
        arguments.run(settings, arguments)
        sys.stdout.flush()
    except Unresumable as error:
        print(f"error: {error}, or {_restart(arguments)}", file=sys.stderr)
        return error.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if os.environ.get("REID_TRACEBACK"):
            raise
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return 1
        print(f"error: {of_system(error, near)}", file=sys.stderr)
        return UserError.exit_code
    except (MemoryError, RuntimeError, ImportError) as error:
        if (lack := of_memory(error)) is None or os.environ.get("REID_TRACEBACK"):
            raise
        print(f"error: {lack}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return 130
    return 0

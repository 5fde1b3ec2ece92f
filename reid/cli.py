"""The `reid` command: one verb per step of the workflow, each a few lines of wiring.

Heavy modules are imported inside the verbs, so that `reid --help` is instant.
"""

import argparse
import os
import select
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_args

from reid import __version__, config
from reid.artifacts import Results
from reid.config import Config
from reid.errors import Unresumable, UserError, of_system
from reid.holdout import VALIDATION

if TYPE_CHECKING:
    from reid.train.session import Session

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Verb: TypeAlias = Callable[[Config, argparse.Namespace], None]


def demo_data(settings: Config, arguments: argparse.Namespace) -> None:
    """Render the embedded benchmark in the DetReIDX layout."""
    from reid.synthetic import benchmark

    benchmark.render(_demo(settings), settings.dataset.root)
    if arguments.contact_sheet is not None:
        benchmark.contact_sheet(settings.dataset.root, arguments.contact_sheet)


def demo_weights(settings: Config, arguments: argparse.Namespace) -> None:
    """Pre-train the two tiny CLIPs of the embedded benchmark on rendered captions."""
    from reid.synthetic import pretrain

    backbone = settings.backbones.get(arguments.backbone)
    if backbone is None or backbone.file is None:
        raise UserError(
            f"backbones.{arguments.backbone}.weights names no local file: set it to the file that "
            "`reid demo-weights` shall write"
        )
    pretrain.pretrain(_demo(settings), arguments.backbone, backbone.file)


def index(settings: Config, arguments: argparse.Namespace) -> None:
    """List every tracklet of the dataset; write the index, rejected.csv and a summary."""
    from reid.data import index as indexing

    indexing.run(settings, look_for_duplicates=arguments.duplicates)


def check(settings: Config, arguments: argparse.Namespace) -> None:
    """Decode the indexed frames once: damaged ones, odd ones, sizes by capture point."""
    from reid.data import quality

    quality.run(settings, frames=arguments.frames, least_height=arguments.least_height)


def pack(settings: Config, arguments: argparse.Namespace) -> None:
    """Copy the indexed frames into a few large files that read faster than one file each."""
    from reid.data import pack as packing

    if arguments.verify:
        packing.run_verify(settings)
    else:
        packing.run(settings, frames_per_tracklet=arguments.frames_per_tracklet)


def stage1(settings: Config, arguments: argparse.Namespace) -> None:
    """Train the identity text contexts on cached image features."""
    from reid.train import stage1 as stage

    stage.run(settings, arguments.training, arguments.seed, _session(arguments))


def stage2(settings: Config, arguments: argparse.Namespace) -> None:
    """Train adapters, prompts, pools and heads (and the last blocks, if unfrozen)."""
    from reid.train import stage2 as stage

    stage.run(settings, arguments.training, arguments.seed, _session(arguments))


def params(settings: Config, arguments: argparse.Namespace) -> None:
    """Print what a training trains: groups, parameters, learning rates, weight decay."""
    from reid.train import params as parameters

    parameters.run(
        settings, arguments.training, geometry=arguments.geometry, classes=arguments.classes
    )


def import_checkpoint(settings: Config, arguments: argparse.Namespace) -> None:
    """Turn a checkpoint of the released code into the final weights of a training."""
    from reid.train import import_checkpoint as importing

    seed = settings.seeds[0] if arguments.seed is None else arguments.seed
    importing.run(settings, arguments.file, arguments.training, seed, allow=arguments.allow)


def extract(settings: Config, arguments: argparse.Namespace) -> None:
    """Extract the features of a protocol's tracklets with a trained model."""
    from reid.retrieval import extract as extraction

    extraction.run(settings, arguments.training, arguments.seed, arguments.protocol)


def tune(settings: Config, arguments: argparse.Namespace) -> None:
    """Choose re-ranking parameters on the identities that the training holds out."""
    from reid.retrieval import tune as tuning

    tuning.run(settings, arguments.variant, arguments.seed)


def retrieve(settings: Config, arguments: argparse.Namespace) -> None:
    """Rank the gallery for every query of a protocol and measure it."""
    from reid.retrieval import retrieve as retrieval

    retrieval.run(settings, arguments.variant, arguments.seed, arguments.protocol)


def submission(settings: Config, arguments: argparse.Namespace) -> None:
    """Write the challenge's csv: the whole gallery ranked for every query of every protocol."""
    from reid.retrieval import submission as submitting

    seed = settings.seeds[0] if arguments.seed is None else arguments.seed
    print(f"wrote {submitting.run(settings, arguments.variant, seed)}")


def score(settings: Config, arguments: argparse.Namespace) -> None:
    """Score a submission csv under both rules of average precision and of junk."""
    from reid.retrieval import scoring

    scoring.run(settings, arguments.file)


def table(settings: Config, _: argparse.Namespace) -> None:
    """Write and print the ablation table."""
    from reid.report import table as tables

    tables.run(settings)


def report(settings: Config, _: argparse.Namespace) -> None:
    """Write the report, one HTML file, and its figures as svg, pdf and csv."""
    from reid.report import report as reporting

    print(reporting.run(settings))


def status(settings: Config, arguments: argparse.Namespace) -> None:
    """Say what is done, at work or failed, with the log to read and the command to go on."""
    from reid import status as reading

    reading.run(settings, arguments.configs)


def _check_names(settings: Config, arguments: argparse.Namespace) -> None:
    """Names on the command line must be in the configuration. Raises UserError."""
    tables: dict[str, Iterable[object]] = {
        "backbone": settings.backbones,
        "training": settings.trainings,
        "variant": settings.variants,
        "seed": settings.seeds,
        "protocol": settings.dataset.protocols,
    }
    if arguments.verb is extract:
        tables["protocol"] = (*settings.dataset.protocols, VALIDATION)
    for kind, known in tables.items():
        name = getattr(arguments, kind, None)
        if name is not None and name not in list(known):
            raise UserError(
                f"--{kind}: no {kind} {name!r} among the {kind}s of the configuration"
                f"{config.nearest(str(name), [str(each) for each in known])}"
            )


def _session(arguments: argparse.Namespace) -> "Session":
    from reid.train.interrupt import Interrupt
    from reid.train.session import Session

    minutes = arguments.time_limit
    for flag, value in (("--time-limit", minutes), ("--wait", arguments.wait)):
        if value is not None and not value >= 0:
            raise UserError(f"{flag} is {value:g}: expected minutes, at least 0")
    interrupt = Interrupt(time_limit=None if minutes is None else 60 * minutes)
    interrupt.listen()
    return Session(interrupt, os.environ, restart=arguments.restart, patience=60 * arguments.wait)


def _demo(settings: Config) -> config.Demo:
    if settings.demo is None:
        raise UserError("no `demo` section: add --config config/demo.yaml")
    return settings.demo


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="reid",
        description="Extreme far-distance video person re-identification, step by step. "
        "`snakemake` runs all steps in order.",
    )
    parser.add_argument("--version", action="version", version=f"xfd-reid {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(name: str, verb: Verb, *, example: str, into: Verbs = verbs) -> argparse.ArgumentParser:
        summary = (verb.__doc__ or "").splitlines()[0]
        child = into.add_parser(
            name, help=summary, description=summary, epilog=f"example: reid {example}"
        )
        child.set_defaults(verb=verb)
        child.add_argument(
            "--config",
            dest="configs",
            action="append",
            type=Path,
            required=True,
            metavar="FILE",
            help="YAML configuration; give it again to add differences on top",
        )
        return child

    demo_configs = "--config config/config.yaml --config config/demo.yaml"
    child = add("demo-data", demo_data, example=f"demo-data {demo_configs}")
    child.add_argument("--contact-sheet", type=Path, metavar="PNG", help="also draw an overview")
    child = add(
        "demo-weights", demo_weights, example=f"demo-weights {demo_configs} --backbone vit_b16"
    )
    child.add_argument("--backbone", required=True, help="key of `backbones`")
    child = add("index", index, example="index --config config/config.yaml")
    child.add_argument(
        "--duplicates", action="store_true", help="also read every frame to find equal ones"
    )
    child = add("check", check, example="check --config config/config.yaml --frames 8")
    child.add_argument("--frames", type=int, metavar="N", help="only N frames of each tracklet")
    child.add_argument(
        "--least-height", type=int, default=16, metavar="PX", help="note tracklets below (16)"
    )
    child = add("pack", pack, example="pack --config config/config.yaml --config my-cluster.yaml")
    either = child.add_mutually_exclusive_group()
    either.add_argument("--verify", action="store_true", help="only compare with the hashes")
    either.add_argument(
        "--frames-per-tracklet",
        type=int,
        metavar="N",
        help="of queries and gallery only what clips of N frames, and those configured, can take",
    )

    stages = verbs.add_parser("train", help="train stage 1 or stage 2").add_subparsers(
        title="stages", metavar="STAGE", required=True
    )
    scaled = "--config config/config.yaml --training scaled --seed 1"
    trainers = [
        add("stage1", stage1, example=f"train stage1 {scaled}", into=stages),
        add("stage2", stage2, example=f"train stage2 {scaled}", into=stages),
    ]
    extractor = add("extract", extract, example=f"extract {scaled} --protocol A2G")
    parameters = add(
        "params", params, example="params --config config/config.yaml --training scaled"
    )
    parameters.add_argument(
        "--geometry",
        choices=("vit_b16", "vit_l14"),
        help="instead of reading it from the weights file",
    )
    parameters.add_argument(
        "--classes", type=int, metavar="N", help="identities; without it, those of the index"
    )
    importer = add(
        "import-checkpoint",
        import_checkpoint,
        example="import-checkpoint ViT-B-16_20.pth --config config/config.yaml "
        "--config config/released.yaml --training released",
    )
    importer.add_argument("file", type=Path, metavar="FILE.pth", help="a state dict in their names")
    importer.add_argument("--seed", type=int, help="one of `seeds`; the first without it")
    importer.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="a tensor, or a pattern of tensors, that may be left over or missing; repeatable",
    )
    for child in (*trainers, extractor, parameters, importer):
        child.add_argument("--training", required=True, help="key of `trainings`")
    for child in trainers:
        child.add_argument(
            "--time-limit",
            type=float,
            metavar="MINUTES",
            help="save and exit with 75 before this much time has passed",
        )
        child.add_argument(
            "--wait",
            type=float,
            default=0.0,
            metavar="MINUTES",
            help="wait this long for another trainer to leave the folder, before exiting with 76",
        )
        child.add_argument(
            "--restart", action="store_true", help="throw away the progress of an unfinished run"
        )
    rows = "--config config/config.yaml --variant scaled --seed 1"
    retriever = add("retrieve", retrieve, example=f"retrieve {rows} --protocol A2G")
    tuner = add("tune", tune, example=f"tune {rows}")
    submitter = add("submission", submission, example=f"submission {rows}")
    submitter.add_argument("--seed", type=int, help="one of `seeds`; the first without it")
    for child in (retriever, tuner, submitter):
        child.add_argument("--variant", required=True, help="key of `variants`")
    for child in (*trainers, extractor, retriever, tuner):
        child.add_argument("--seed", type=int, required=True, help="one of `seeds`")
    protocols = get_args(config.Protocol)
    extractor.add_argument(
        "--protocol",
        required=True,
        choices=(*protocols, VALIDATION),
        help="`validation`: the identities that the training holds out",
    )
    retriever.add_argument("--protocol", required=True, choices=protocols)
    scorer = add("score", score, example="score FILE.csv --config config/config.yaml")
    scorer.add_argument("file", type=Path, metavar="FILE.csv", help="a submission")
    add("status", status, example="status --config config/config.yaml")
    add("table", table, example="table --config config/config.yaml")
    add("report", report, example="report --config config/config.yaml")
    return parser


def _restart(arguments: argparse.Namespace) -> str:
    """The command that trains the same stage from its beginning."""
    files = [part for path in arguments.configs for part in ("--config", str(path))]
    run = ["--training", arguments.training, "--seed", str(arguments.seed), "--restart"]
    return shlex.join(["reid", "train", arguments.verb.__name__, *files, *run])


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more, as after `| head`; then nothing more is."""
    printed = select.poll()
    printed.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in printed.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or that of the error it printed in one line.

    1: bad input, or the operating system refuses something (REID_TRACEBACK=1 shows where);
    75: stopped in time, run it again to resume; 76: another trainer is at work; 130: interrupted
    from the keyboard.
    """
    # Before torch is imported: waiting threads that spin starve other jobs of the same node.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = build_parser().parse_args(argv)
    near = "results/"
    try:
        settings = config.load(arguments.configs)
        near = str(Results.of(settings.dataset.name).root)
        _check_names(settings, arguments)
        arguments.verb(settings, arguments)
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
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 1
        print(f"error: {of_system(error, near)}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    return 0

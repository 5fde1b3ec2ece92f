"""The verbs of the `reid` command, one for each step of the workflow, with their options.

Heavy modules are imported inside the verbs, so that `reid --help` is instant.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

from reid import config
from reid.chain import NOT_RUN, Chain
from reid.config import Config
from reid.data.holdout import VALIDATION
from reid.errors import UserError

if TYPE_CHECKING:
    from reid.train.session import Session

Verb: TypeAlias = Callable[[Config, argparse.Namespace], None]
Option: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]
"""Arguments of `ArgumentParser.add_argument`."""


class Command(NamedTuple):
    """A verb, such as `index` or `train stage1`, with its options and those of its example."""

    name: str
    run: Verb
    options: tuple[Option, ...]
    example: str


COMMANDS: list[Command] = []
"""All verbs, in the order of `reid --help`."""


def option(*names: str, **settings: Any) -> Option:
    """An option in the words of argparse."""
    return names, settings


def verb(name: str, *options: Option, example: str = "") -> Callable[[Verb], Verb]:
    """Register a function as verb `name`; the first line of its docstring is its help."""

    def register(function: Verb) -> Verb:
        COMMANDS.append(Command(name, function, options, example))
        return function

    return register


DEMO = "--configfile config/demo.yaml"
ONE_RUN = "--training scaled --seed 1"
TRAINING = option("--training", required=True, help="key of `trainings`")
VARIANT = option("--variant", required=True, help="key of `variants`")
SEED = option("--seed", type=int, required=True, help="one of `seeds`")
SEED_OR_FIRST = option("--seed", type=int, help="one of `seeds`; default: the first")
PROTOCOLS = get_args(config.Protocol)
TIME_LIMIT = "save and exit with 75 before this much time has passed"
WAIT = "wait this long for another trainer to leave the folder, before exiting with 76"
TRAINER = (
    TRAINING,
    SEED,
    option("--time-limit", type=float, metavar="MINUTES", help=TIME_LIMIT),
    option("--wait", type=float, default=0.0, metavar="MINUTES", help=WAIT),
    option("--restart", action="store_true", help="discard the progress of an unfinished run"),
)


@verb(
    "demo-data",
    option("--contact-sheet", type=Path, metavar="PNG", help="also draw an overview"),
    example=DEMO,
)
def demo_data(settings: Config, arguments: argparse.Namespace) -> None:
    """Render the embedded benchmark in the DetReIDX layout."""
    from reid.synthetic import benchmark

    chain, demo = Chain(settings), _demo(settings)
    with chain.record(chain.steps.demo_data()):
        benchmark.render(demo, settings.dataset.root)
    if arguments.contact_sheet is not None:
        benchmark.contact_sheet(settings.dataset.root, arguments.contact_sheet)


@verb(
    "demo-weights",
    option("--backbone", required=True, help="key of `backbones`"),
    example=f"{DEMO} --backbone vit_b16",
)
def demo_weights(settings: Config, arguments: argparse.Namespace) -> None:
    """Pre-train the two tiny CLIPs of the embedded benchmark on rendered captions."""
    from reid.synthetic import pretrain

    backbone = settings.backbones.get(arguments.backbone)
    if backbone is None or backbone.file is None:
        raise UserError(
            f"backbones.{arguments.backbone}.weights names no local file: set it to the file that "
            "`reid demo-weights` is to write"
        )
    chain, demo = Chain(settings), _demo(settings)
    with chain.record(chain.steps.demo_weights(arguments.backbone)):
        pretrain.pretrain(demo, arguments.backbone, backbone.file)


@verb("index")
def index(settings: Config, _: argparse.Namespace) -> None:
    """List every tracklet of the dataset; write the index, rejected.csv and a summary."""
    from reid.data import index as indexing

    indexing.run(settings)


@verb(
    "check",
    option("--frames", type=int, metavar="N", help="only N frames of each tracklet"),
    option("--least-height", type=int, default=16, metavar="PX", help="note tracklets below (16)"),
    example="--frames 8",
)
def check(settings: Config, arguments: argparse.Namespace) -> None:
    """Decode the indexed frames: list damaged, odd and equal ones, and sizes by capture point."""
    from reid.data import check as checking

    _warn_of_index(settings)
    checking.run(settings, frames=arguments.frames, least_height=arguments.least_height)


@verb(
    "pack",
    option("--verify", action="store_true", help="only compare with the hashes"),
    option(
        "--frames-per-tracklet",
        type=int,
        metavar="N",
        help="of queries and gallery pack only frames that clips of N, or configured, frames use",
    ),
    example="--configfile my-cluster.yaml",
)
def pack(settings: Config, arguments: argparse.Namespace) -> None:
    """Copy the indexed frames into a few large files that read faster than one file each."""
    from reid.data import pack as packing

    if arguments.verify and arguments.frames_per_tracklet is not None:
        raise UserError("--verify only compares: leave --frames-per-tracklet out")
    _warn_of_index(settings)
    if arguments.verify:
        packing.run_verify(settings)
    else:
        packing.run(settings, frames_per_tracklet=arguments.frames_per_tracklet)


@verb("train stage1", *TRAINER, example=ONE_RUN)
def stage1(settings: Config, arguments: argparse.Namespace) -> None:
    """Train the identity text contexts on cached image features."""
    from reid.train import stage1 as stage

    stage.run(settings, arguments.training, arguments.seed, _session(arguments))


@verb("train stage2", *TRAINER, example=ONE_RUN)
def stage2(settings: Config, arguments: argparse.Namespace) -> None:
    """Train adapters, prompts, pools and heads (and the last blocks, if unfrozen)."""
    from reid.train import stage2 as stage

    stage.run(settings, arguments.training, arguments.seed, _session(arguments))


@verb(
    "params",
    TRAINING,
    option("--geometry", choices=("vit_b16", "vit_l14"), help="default: that of the weights file"),
    option("--classes", type=int, metavar="N", help="identities; default: those of the index"),
    example="--training scaled",
)
def params(settings: Config, arguments: argparse.Namespace) -> None:
    """Print what a training trains: groups, parameters, learning rates, weight decay."""
    from reid.train import params as parameters

    parameters.run(
        settings, arguments.training, geometry=arguments.geometry, classes=arguments.classes
    )


@verb(
    "import-checkpoint",
    option("file", type=Path, metavar="FILE.pth", help="a state dict in their names"),
    TRAINING,
    SEED_OR_FIRST,
    option(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="a tensor, or a pattern of tensors, that may be left over or missing; repeatable",
    ),
    example="ViT-B-16_20.pth --configfile config/released.yaml --training released",
)
def import_checkpoint(settings: Config, arguments: argparse.Namespace) -> None:
    """Turn a checkpoint of the released code into the final weights of a training."""
    from reid.train import import_checkpoint as importing

    seed = _seed(settings, arguments)
    importing.run(settings, arguments.file, arguments.training, seed, allow=arguments.allow)


@verb(
    "extract",
    TRAINING,
    SEED,
    option(
        "--protocol",
        required=True,
        choices=(*PROTOCOLS, VALIDATION),
        help="`validation`: the identities that the training holds out",
    ),
    example=f"{ONE_RUN} --protocol A2G",
)
def extract(settings: Config, arguments: argparse.Namespace) -> None:
    """Extract the features of a protocol's tracklets with a trained model."""
    from reid.features import extract as extraction

    extraction.run(settings, arguments.training, arguments.seed, arguments.protocol)


@verb("tune", VARIANT, SEED, example="--variant scaled --seed 1")
def tune(settings: Config, arguments: argparse.Namespace) -> None:
    """Choose re-ranking parameters on the identities that the training holds out."""
    from reid.retrieval import tune as tuning

    tuning.run(settings, arguments.variant, arguments.seed)


@verb(
    "retrieve",
    VARIANT,
    SEED,
    option("--protocol", required=True, choices=PROTOCOLS),
    example="--variant scaled --seed 1 --protocol A2G",
)
def retrieve(settings: Config, arguments: argparse.Namespace) -> None:
    """Rank the gallery for every query of a protocol and measure it."""
    from reid.retrieval import retrieve as retrieval

    retrieval.run(settings, arguments.variant, arguments.seed, arguments.protocol)


@verb("submission", VARIANT, SEED_OR_FIRST, example="--variant scaled")
def submission(settings: Config, arguments: argparse.Namespace) -> None:
    """Write the challenge's csv: the whole gallery ranked for every query of every protocol."""
    from reid.retrieval import submission as submitting

    print(f"wrote {submitting.run(settings, arguments.variant, _seed(settings, arguments))}")


@verb(
    "score", option("file", type=Path, metavar="FILE.csv", help="a submission"), example="FILE.csv"
)
def score(settings: Config, arguments: argparse.Namespace) -> None:
    """Score a submission csv under both rules of average precision and of junk."""
    from reid.retrieval import submission as submitting

    submitting.score(settings, arguments.file)


@verb("table")
def table(settings: Config, _: argparse.Namespace) -> None:
    """Write and print the ablation table."""
    from reid.report import table as tables

    tables.run(settings)


@verb("report")
def report(settings: Config, _: argparse.Namespace) -> None:
    """Write the report, one HTML file, and its figures as svg, pdf and csv."""
    from reid.report import page as reporting

    print(reporting.run(settings))


@verb("status")
def status(settings: Config, arguments: argparse.Namespace) -> None:
    """Show which jobs are done, running or failed, their logs, and the command to resume."""
    from reid import status as reading

    reading.run(settings, arguments.configs)


@verb("clean", option("--yes", action="store_true", help="remove it"), example="--yes")
def clean(settings: Config, arguments: argparse.Namespace) -> None:
    """Show, or remove, what trainings with other options left behind."""
    from reid import status as reading

    reading.clean(settings, really=arguments.yes)


@verb(
    "diff",
    option("first", type=Path, metavar="ONE", help="an artifact, its manifest, or a folder"),
    option("second", type=Path, metavar="OTHER", help="the same of another run"),
    example="results/one/retrieval results/other/retrieval",
)
def diff(_: Config, arguments: argparse.Namespace) -> None:
    """Print what differs between two runs, or two folders of results: options first."""
    from reid import diff as comparing

    for line in comparing.compare(arguments.first, arguments.second):
        print(line)


def _warn_of_index(settings: Config) -> None:
    """Say so if the index is not that of the dataset and options of now."""
    chain = Chain(settings)
    problem = chain.why(chain.steps.index())
    if problem not in (None, NOT_RUN):
        print(f"warning: the index does not hold ({problem}): run `reid index` again", flush=True)


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
        raise UserError("no `demo` section: add --configfile config/demo.yaml")
    return settings.demo


def _seed(settings: Config, arguments: argparse.Namespace) -> int:
    seed: int = settings.seeds[0] if arguments.seed is None else arguments.seed
    return seed

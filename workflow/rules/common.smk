"""What the rules share: the configuration, checked, and look-ups in it."""

import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from cluster import executor
from reid import config as options
from reid.chain import Chain, NOT_RUN, demand_this_version
from reid.paths import Results
from reid.errors import UserError, of_system
from reid.files import read_yaml, sha256_of_json, write_text
from reid.data.holdout import VALIDATION
from reid.sources import demand_one_checkout

# `python` in a rule is the one that runs Snakemake, also when its environment is not activated.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
)

try:
    demand_one_checkout(Path.cwd(), Path(workflow.basedir).parent)
    if sum(each.partition("=")[0] == "--configfile" for each in sys.argv) > 1:
        raise UserError(
            "of several --configfile Snakemake takes only the last: name all files after one, "
            "--configfile a.yaml b.yaml"
        )
    for each in map(Path, workflow.configfiles):
        if each.suffix in (".yaml", ".yml"):
            read_yaml(each)  # for what Snakemake's own reader lets pass: repeated keys
    SETTINGS = options.parse(config, source="configuration")
    # Paths that Snakemake gets as inputs or outputs.
    named = {
        f"backbones.{name}.weights": each.file
        for name, each in SETTINGS.backbones.items()
        if each.file
    }
    named["results"] = SETTINGS.results
    if SETTINGS.demo:
        named["dataset.root"] = SETTINGS.dataset.root
    for key, path in named.items():
        if set("{}") & set(str(path)):
            raise UserError(
                f"{key}: {path} has braces, which Snakemake takes for wildcards: name another path"
            )
except UserError as error:
    raise WorkflowError(error) from None

# As a module with a prefix: Snakemake puts it before relative paths, the verbs know nothing of it.
PREFIX = workflow.modifier.path_modifier.prefix


def at(path):
    """A path of the user, as the verbs see it: without the prefix of a module."""
    return Path.cwd() / path if PREFIX else Path(path)


if PREFIX:
    SETTINGS = SETTINGS.model_copy(
        update={"results": Path.cwd() / PREFIX / SETTINGS.results}
    )

PROTOCOLS = SETTINGS.dataset.protocols
RESULTS = Results.of(SETTINGS)
FROZEN = RESULTS.config(sha256_of_json(SETTINGS.model_dump(mode="json"))[:16])
"""The whole configuration as one file named by its content, which every verb reads."""

CHAIN = Chain(SETTINGS)
STEPS = CHAIN.steps

if workflow.is_main_process:
    # The jobs read what this process has written.
    try:
        demand_this_version(RESULTS)
        write_text(
            FROZEN, yaml.safe_dump(SETTINGS.model_dump(mode="json"), sort_keys=False)
        )
        CHAIN.write_stamps()
    except UserError as error:
        raise WorkflowError(error) from None
    except OSError as error:
        raise WorkflowError(of_system(error)) from None
    for job in CHAIN.jobs:
        reason = CHAIN.problem(job)
        if reason and reason != NOT_RUN and CHAIN.why(job) == reason:
            logger.info(f"{job.name} must run again: {reason}")


wildcard_constraints:
    seed=r"\d+",
    training="|".join(SETTINGS.trainings),
    variant="|".join(SETTINGS.variants),
    protocol="|".join((*PROTOCOLS, VALIDATION)),


def tabulate_what_there_is():
    """After a failure: table and report with gaps, in place of those from before, and what to
    type."""
    if any(path.exists() for path in METRICS):
        shell("python -m reid table --config {FROZEN:q}")
        shell("python -m reid report --config {FROZEN:q}")
    command = shlex.join(["snakemake", *sys.argv[1:]])
    print(
        f"To resume, run the same command again once the cause is mended (finished jobs are kept):\n{command}"
    )


def frozen(wildcards, output):
    """The frozen configuration. It asks for `output` so that Snakemake takes it for derived:
    a new name re-runs nothing, the stamps say what to re-run."""
    return FROZEN.as_posix()


def stamp(step, *keys):
    """An input: what a job depends on, the only thing whose time decides whether it runs."""

    def of_job(wildcards):
        place = [
            f"seed{wildcards.seed}" if key == "seed" else wildcards[key] for key in keys
        ]
        return RESULTS.stamp(step, *place)

    return of_job


def memory(megabytes, stage=None):
    """A resource: more memory for another attempt, in case that the last one lacked some.

    A training also runs again after its time was up; only one that was killed without a
    farewell gets more.
    """

    def of_attempt(wildcards, attempt):
        lacked = attempt > 1
        if lacked and stage:
            job = getattr(STEPS, stage)(wildcards.training, int(wildcards.seed))
            lacked = executor.was_killed(CHAIN.work(job) / "attempts.jsonl")
        return megabytes + (megabytes // 2 if lacked else 0)

    return of_attempt


def weights(wildcards):
    """An input: the CLIP weights of the demonstration. Those of the user are watched by the stamp:
    another path is no reason to train again."""
    backbone = SETTINGS.trainings[wildcards.training].backbone
    path = SETTINGS.backbones[backbone].file
    if path is None:
        return []
    if not SETTINGS.demo and not path.is_file():
        raise WorkflowError(
            f"backbones.{backbone}.weights: {path} is not a file: put the CLIP weights there or "
            "name their file in the configuration (README: Data and weights)"
        )
    return at(path) if SETTINGS.demo else []


def backbone_of_demo_weights(wildcards, output):
    """A param: the key of `backbones` whose weights file this is."""
    return next(
        n for n, b in SETTINGS.backbones.items() if at(b.weights) == at(output[0])
    )


def dataset(wildcards):
    """An input of the index: the rendered dataset. A real one is watched by the stamp."""
    if SETTINGS.demo:
        return at(STEPS.demo_data().manifest)
    if not SETTINGS.dataset.root.is_dir():
        raise WorkflowError(
            f"dataset.root: {SETTINGS.dataset.root} is not a folder: put the dataset there or name "
            "its folder in the configuration (to try without one: --configfile config/demo.yaml)"
        )
    return []


def stage1_of_owner(wildcards):
    """An input: stage 1 of the job's training, or of the one that it shares it with."""
    return STEPS.stage1(wildcards.training, int(wildcards.seed)).output


def index(wildcards):
    """An input: the index of a protocol; the tracklets held out of training are in training's."""
    return RESULTS.index(
        "train" if wildcards.protocol == VALIDATION else wildcards.protocol
    )


def features(*protocols):
    """An input: the features of the variant's training, of these protocols or the job's."""

    def of_job(wildcards):
        training = SETTINGS.variants[wildcards.variant].training
        names = protocols or (wildcards.protocol,)
        return [RESULTS.features(training, wildcards.seed, name) for name in names]

    return of_job


def tuned(wildcards):
    """An input: the re-ranking parameters of the variant, if they are chosen by `reid tune`."""
    if not SETTINGS.variants[wildcards.variant].tuned:
        return []
    return RESULTS.tuned(wildcards.variant, wildcards.seed)


METRICS = [
    RESULTS.retrieval(variant, seed, protocol)
    for variant in SETTINGS.variants
    for seed in SETTINGS.seeds
    for protocol in PROTOCOLS
]
TABLES = [*map(RESULTS.table, ("csv", "md", "tex")), RESULTS.breakdown()]

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


def needs(step, *keys):
    """Inputs: what other jobs make for a job, and its stamp, whose time alone decides whether it
    runs. Files of the user are watched by the stamp: another path or time is no reason to run.
    """

    def of_job(wildcards):
        place = [
            int(wildcards.seed) if key == "seed" else wildcards[key] for key in keys
        ]
        job = getattr(STEPS, step)(*place)
        makers = {path: CHAIN.makers.get(path) for path in job.inputs.values()}
        for role, path in job.inputs.items():
            if makers[path] is None:
                demand_of_user(job, role, path)
        made = [output_of(maker, path) for path, maker in makers.items() if maker]
        return [RESULTS.stamp(job.step, *job.place), *map(at, made)]

    return of_job


def output_of(job, path):
    """What stands for an output of a job in its rule: Snakemake deletes the outputs of a rule, and
    must not delete the mark of the rendered dataset."""
    return job.manifest if job.step == "demo_data" else path


def demand_of_user(job, role, path):
    """Weights and dataset must be there before anything runs."""
    if role == "weights" and not path.is_file():
        raise WorkflowError(
            f"backbones.{SETTINGS.trainings[job.place[0]].backbone}.weights: {path} is not a file: "
            "put the CLIP weights there or name their file in the configuration (README: Data and "
            "weights)"
        )
    if role == "dataset" and not path.is_dir():
        raise WorkflowError(
            f"dataset.root: {path} is not a folder: put the dataset there or name its folder in "
            "the configuration (to try without one: --configfile config/demo.yaml)"
        )


def memory(megabytes, stage=None):
    """A resource: more memory for another attempt, in case that the last one lacked some.

    A training also runs again after its time was up; only one that was killed without a
    farewell gets more.
    """

    def of_attempt(wildcards, attempt):
        lacked = attempt > 1
        if lacked and stage:
            job = getattr(STEPS, stage)(wildcards.training, int(wildcards.seed))
            lacked = executor.was_killed(CHAIN.work(job))
        return megabytes + (megabytes // 2 if lacked else 0)

    return of_attempt


def backbone_of_demo_weights(wildcards, output):
    """A param: the key of `backbones` whose weights file this is."""
    return next(
        n for n, b in SETTINGS.backbones.items() if at(b.weights) == at(output[0])
    )


METRICS = [
    RESULTS.retrieval(variant, seed, protocol)
    for variant in SETTINGS.variants
    for seed in SETTINGS.seeds
    for protocol in PROTOCOLS
]
TABLES = [*map(RESULTS.table, ("csv", "md", "tex")), RESULTS.breakdown()]

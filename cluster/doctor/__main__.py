"""`python -m cluster.doctor`: look over this cluster before the first run."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from cluster import configs, requests
from cluster.doctor import checks, facts, trial
from cluster.doctor.finding import Finding, summary
from reid import config
from reid.errors import UserError, of_system


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """All findings, as they come. Raises UserError where nothing can be looked at."""
    cluster = facts.gather()
    settings = config.load(configs.named(arguments))
    profile = requests.read(arguments.profile)
    version = cluster.config["SLURM_VERSION"]
    yield Finding("ok", "Slurm", f"{version} answers; cluster {cluster.config['ClusterName']}")
    yield from checks.every(cluster, profile)
    yield from trial.accepted(profile)
    yield from trial.here(settings)
    if arguments.job:
        job = trial.Trial.submit(profile, settings)
        yield from [job] if isinstance(job, Finding) else job.follow(60 * arguments.wait)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.doctor",
        description="Say whether this cluster, as the profile asks it, can run the workflow, and "
        "what to change where. Submits one short job. Exits with 1 if there is a problem.",
        epilog="example: python -m cluster.doctor --configfile my.yaml",
    )
    configs.add_flags(parser)
    parser.add_argument("--profile", default="slurm", help="as for snakemake (slurm)")
    parser.add_argument("--no-job", dest="job", action="store_false", help="submit no test job")
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="MINUTES", help="for the test job (10)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; 1 if there is a problem, or where nothing can be looked at."""
    arguments = build_parser().parse_args(argv)
    findings = []
    try:
        for finding in examine(arguments):
            print(finding, flush=True)
            findings.append(finding)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {of_system(error)}", file=sys.stderr)
        return 1
    print(summary(findings))
    return int(any(finding.level == "problem" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

"""Configuration files on the command lines of this package: as for `reid` or Snakemake."""

import argparse
from pathlib import Path

from reid.config import STANDARD


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--configfile`, each for one or several files, and repeatable."""
    for flag, meaning in (
        ("--config", f"the whole configuration, as for reid; {STANDARD} without it"),
        ("--configfile", "your differences from it, as for snakemake"),
    ):
        parser.add_argument(
            flag, action="extend", nargs="+", type=Path, default=[], metavar="FILE", help=meaning
        )


def named(arguments: argparse.Namespace) -> list[Path]:
    """The files that were named, each a difference from the one before."""
    return [*(arguments.config or [STANDARD]), *arguments.configfile]

"""Configuration files on the command lines of the launcher and the doctor."""

import argparse
from pathlib import Path

import pytest

from cluster import configs


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("", ["config/config.yaml"]),
        ("--configfile a.yaml b.yaml", ["config/config.yaml", "a.yaml", "b.yaml"]),
        ("--configfile a.yaml --configfile b.yaml", ["config/config.yaml", "a.yaml", "b.yaml"]),
        ("--config a.yaml --config b.yaml", ["a.yaml", "b.yaml"]),
        ("--config a.yaml b.yaml --configfile c.yaml", ["a.yaml", "b.yaml", "c.yaml"]),
    ],
)
def test_files_are_named_as_for_reid_or_as_for_snakemake(line: str, files: list[str]) -> None:
    parser = argparse.ArgumentParser()
    configs.add_flags(parser)
    assert configs.named(parser.parse_args(line.split())) == [Path(file) for file in files]

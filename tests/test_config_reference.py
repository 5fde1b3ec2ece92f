"""The written reference of the configuration is that of today's options."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from reid.config import reference

ROOT = Path(__file__).resolve().parents[1]


def test_the_generated_files_are_up_to_date() -> None:
    current = (ROOT / reference.README).read_text()
    assert current == reference.readme(current), "run `make docs`"
    written = json.loads((ROOT / reference.SCHEMA).read_text())
    assert written == reference.schema(), "run `make docs`"


def test_every_section_and_option_says_what_it_means_and_where_it_acts() -> None:
    paths = set()
    for path, section, _ in reference._walk(reference.Config, None, ""):
        paths.add(path)
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description or reference._nested(field)[0], (path, name)
    assert set(reference.ACTS_IN) <= paths
    assert reference.readme(f"{reference.BEGIN}\n").count("Acts in: ") == len(reference.ACTS_IN)
    with pytest.raises(ValueError, match="marker"):
        reference.readme("# Configuration\n")


def test_the_schema_accepts_the_shipped_configuration_and_refuses_a_typo() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    validator = jsonschema.Draft202012Validator(reference.schema())
    validator.validate(shipped)
    shipped["variants"]["scaled"]["rerank"] = "tuned"
    validator.validate(shipped)
    shipped["trainings"]["scaled"]["epoch"] = 3
    assert not validator.is_valid(shipped)

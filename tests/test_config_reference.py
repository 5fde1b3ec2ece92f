"""The written reference of the configuration is that of today's options."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from reid.config import Section, reference

ROOT = Path(__file__).resolve().parents[1]


def sections(base: type[BaseModel] = Section) -> Iterator[type[BaseModel]]:
    for section in base.__subclasses__():
        yield section
        yield from sections(section)


def test_the_generated_files_are_up_to_date() -> None:
    current = (ROOT / reference.README).read_text()
    assert current == reference.readme(current), "run `make docs`"
    written = json.loads((ROOT / reference.SCHEMA).read_text())
    assert written == reference.schema(), "run `make docs`"


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_option_says_what_it_means(section: type[BaseModel]) -> None:
    assert section.__doc__
    silent = [
        name
        for name, field in section.model_fields.items()
        if not field.description and reference._nested(field)[0] is None
    ]
    assert not silent


def test_it_says_of_every_section_and_no_other_where_it_acts() -> None:
    paths = {path for path, *_ in reference._walk(reference.Config, None, "")}
    assert set(reference.ACTS_IN) <= paths
    assert reference.readme(f"{reference.BEGIN}\n").count("Acts in: ") == len(reference.ACTS_IN)


def test_the_schema_accepts_the_shipped_configuration_and_refuses_a_typo() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    validator = jsonschema.Draft202012Validator(reference.schema())
    validator.validate(shipped)
    shipped["variants"]["scaled"]["rerank"] = "tuned"
    validator.validate(shipped)
    shipped["trainings"]["scaled"]["epoch"] = 3
    assert not validator.is_valid(shipped)


def test_a_readme_without_its_marker_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="marker"):
        reference.readme("# Configuration\n")

"""The configuration: what is refused, in words for people who write YAML."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reid import config
from reid.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def refusal(tmp_path: Path, change: dict[str, Any]) -> str:
    """The error about a difference from the shipped configuration."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(change))
    with pytest.raises(UserError) as raised:
        config.load([ROOT / "config" / "config.yaml", path])
    message = str(raised.value)
    assert "\n" not in message
    return message.partition("mine.yaml: ")[2]


def scaled(stage2: dict[str, Any]) -> dict[str, Any]:
    return {"trainings": {"scaled": {"stage2": stage2}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"runtime": {"stage_to": "/scratch"}},
            "runtime: stage_to copies the pack: set runtime.pack too, or leave it out",
        ),
        (
            scaled({"schedule": {"steps": [40]}}),
            "trainings.scaled.stage2.schedule: steps does nothing with kind cosine: leave it out",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    assert refusal(tmp_path, change) == words


def test_a_cosine_does_not_inherit_steps(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    change = {"trainings": {"baseline": {"stage2": {"schedule": {"steps": [4, 5]}}}}}
    path.write_text(yaml.safe_dump(change))
    found = config.load([ROOT / "config" / "config.yaml", path])
    schedules = {name: each.stage2.schedule for name, each in found.trainings.items()}
    assert schedules["baseline"].steps == (4, 5)
    assert schedules["optimized"].steps == config.Schedule().steps
    path.write_text(yaml.safe_dump(found.model_dump(mode="json")))
    assert config.load([path]) == found, "as the workflow keeps it, it reads the same"


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_part_of_a_schedule_leaves_the_rest_as_it_is(stage: str) -> None:
    default = getattr(config.Training(), stage).schedule
    changed = config.Training.model_validate({stage: {"schedule": {"warmup_epochs": 3}}})
    assert getattr(changed, stage).schedule == default.model_copy(update={"warmup_epochs": 3})

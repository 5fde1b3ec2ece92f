"""The configuration: what is refused, in words for people who write YAML."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 1}, "seeds: expected a list, found 1"),
        ({"runtime": [1]}, "runtime: expected a mapping, found [1]"),
        (
            {"dataset": {"layout": "detreid"}},
            "dataset.layout: no 'detreid' (did you mean detreidx?)",
        ),
        (
            {"variants": {"scaled": {"rerank": "tunde"}}},
            "variants.scaled: rerank is 'tunde': expected `tuned`, or k1, k2 and lambda_value",
        ),
        (
            scaled({"epochs": None}),
            "trainings.scaled.stage2.epochs: expected a valid integer, found nothing",
        ),
        (
            {"dataset": {"root": "$NOT_SET_ANYWHERE/x"}},
            "dataset.root: $NOT_SET_ANYWHERE/x names an environment variable that is not set",
        ),
    ],
)
def test_errors_are_in_the_words_of_yaml(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    assert refusal(tmp_path, change) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: [010]", "line 1: '010': expected a decimal integer"),
        ("seeds: [1:30]", "line 1: '1:30': expected a decimal integer"),
        ("seeds: [true]", "seeds.0: expected a valid integer, found True"),
        ("seeds: [!!int abc]", "line 1: 'abc': expected a decimal integer"),
        ("seeds: [" + "9" * 5000 + "]", "expected a decimal integer of at most 18 digits"),
        ("seeds: [-1]", "seeds.0: expected greater than or equal to 0"),
        ("dataset: {root: 2024-13-45}", "'2024-13-45': month must be in 1..12"),
        ("a: " + "[" * 9000, "nested too deeply"),
        ("trainings: {scaled: {stage2: {lr: .inf}}}", "lr: expected a finite number"),
        ("trainings: {scaled: {stage2: {lr: true}}}", "lr: expected a number, found true"),
        (
            "trainings: {scaled: {stage2: {batch_size: 1, instances: 1}}}",
            "batch_size: expected greater than",
        ),
        ("trainings: {scaled: {stage2: {instances: 1000000000}}}", "instances: expected less than"),
        ("trainings: {scaled: {clip: {frames: 1000000000000}}}", "frames: expected less than"),
        ("trainings: {scaled: {extends: [a]}}", "extends: expected the name of a training"),
        ("trainings: {}\nvariants: {}", ""),
        ("dataset: {rot: a}", "dataset: unknown key rot (did you mean root?)"),
        ("variant: {}", "unknown key variant (did you mean variants?)"),
        ("trainings: {scaled: {1: 2}}", "trainings.scaled: unknown key 1"),
        ("trainings: 3", "trainings: expected a mapping, found 3"),
        ("dataset: {root: a, root: b}", "line 1: key root is already in line 1"),
    ],
    ids=lambda value: value[:30],
)
def test_a_value_that_means_something_else_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    paths = [ROOT / "config" / "config.yaml", path]
    if words:
        with pytest.raises(UserError) as raised:
            config.load(paths)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
    else:
        assert config.load(paths) == config.load(paths[:1]), "an empty difference"


@given(text=st.text() | st.text("[]{}:,-!&*# \n\t0123456789.abt'\"|>%@`"))
def test_any_text_is_a_configuration_or_one_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        with contextlib.suppress(UserError):
            config.load([ROOT / "config" / "config.yaml", path])


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", "a list")])
def test_a_file_without_options_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"mine.yaml: expected a mapping of options, found {found}"):
        config.load([path])


def test_paths_may_name_the_home_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    path = tmp_path / "mine.yaml"
    change = {
        "dataset": {"root": "~/crops", "damaged": "$DISK/damaged.csv", "manifest": "~/list.csv"},
        "backbones": {"vit_b16": {"weights": "${DISK}/b16.pt"}},
        "runtime": {"pack": "$DISK/pack"},
    }
    path.write_text(yaml.safe_dump(change))
    found = config.load([ROOT / "config" / "config.yaml", path])
    assert found.dataset.root == Path("/home/me/crops")
    assert found.dataset.damaged == Path("/disk/damaged.csv")
    assert found.dataset.manifest == Path("/home/me/list.csv")
    assert found.backbones["vit_b16"].file == Path("/disk/b16.pt")
    assert found.runtime.pack == Path("/disk/pack")


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

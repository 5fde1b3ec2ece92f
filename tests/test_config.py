"""The configuration: what is refused, with one message that names the key."""

import argparse
import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reid import config
from reid.config import Config
from reid.errors import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "config" / "config.yaml"


def load(folder: Path, text: str) -> Config:
    """The shipped configuration with a difference on top."""
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return config.load([SHIPPED, path])


STAGE2 = "trainings: {scaled: {stage2: {%s}}}"
REFUSED = {
    "runtime: {stage_to: /scratch}":
        "runtime: stage_to copies the pack: set runtime.pack too, or leave it out",
    STAGE2 % "schedule: {steps: [40]}":
        "trainings.scaled.stage2.schedule: steps does nothing with kind cosine: leave it out",
    "seeds: 1": "seeds: expected a list, found 1",
    "runtime: [1]": "runtime: expected a mapping, found [1]",
    "dataset: {layout: detreid}": "dataset.layout: no 'detreid' (did you mean detreidx?)",
    "variants: {scaled: {rerank: tunde}}":
        "variants.scaled: rerank is 'tunde': expected `tuned`, or k1, k2 and lambda_value",
    "variants: {mine: {training: scaled, label: x, rerank: tuned}}":
        "variants.mine is tuned, but trainings.scaled holds no identities out: set its validation",
    "variants: {scaled: {tuned: true}}": "a variant is tuned or has its own rerank: leave out one",
    STAGE2 % "epochs: null":
        "trainings.scaled.stage2.epochs: expected a valid integer, found nothing",
    "dataset: {root: $NOT_SET_ANYWHERE/x}":
        "dataset.root: $NOT_SET_ANYWHERE/x names an environment variable that is not set",
    "seeds: [010]": "line 1: '010': expected a decimal integer",
    "seeds: [1:30]": "line 1: '1:30': expected a decimal integer",
    "seeds: [true]": "seeds.0: expected a valid integer, found True",
    "seeds: [!!int abc]": "line 1: 'abc': expected a decimal integer",
    f"seeds: [{'9' * 5000}]": "expected a decimal integer of at most 18 digits",
    "dataset: {metadata: !!bool abc}": "line 1: 'abc': not a bool",
    "dataset: {root: !!timestamp abc}": "line 1: 'abc': not a timestamp",
    "results: ''": "results: expected a path, found ''",
    'dataset: {root: "a\\0b"}': "dataset.root: expected a path, found 'a\\x00b'",
    "dataset: {root: null}": "dataset.root: expected a path, found nothing",
    "seeds: []": "seeds: expected at least one entry",
    'trainings: {"a\\nb": {}}': "trainings.a\\nb",
    "runtime: {workers: 2147483647}": "runtime.workers: expected less than or equal to 1024",
    "seeds: [-1]": "seeds.0: expected greater than or equal to 0",
    "dataset: {root: 2024-13-45}": "'2024-13-45': month must be in 1..12",
    "a: " + "[" * 9000: "nested too deeply",
    STAGE2 % "lr: .inf": "lr: expected a finite number",
    STAGE2 % "lr: true": "lr: expected a number, found true",
    STAGE2 % "batch_size: 1, instances: 1": "batch_size: expected greater than",
    STAGE2 % "instances: 1000000000": "instances: expected less than",
    "trainings: {scaled: {clip: {frames: 1000000000000}}}": "frames: expected less than",
    "trainings: {scaled: {extends: [a]}}": "extends: expected the name of a training",
    "seeds: [1, 2, 1]": "seeds: 1 is listed 2 times, expected each value once",
    "dataset: {protocols: [A2G, A2G]}": "dataset.protocols: A2G is listed 2 times",
    "report: {variant: scald}": "report.variant: no 'scald' (did you mean scaled?)",
    "dataset: {rot: a}": "dataset: unknown key rot (did you mean root?)",
    "variant: {}": "unknown key variant (did you mean variants?)",
    "trainings: {scaled: {1: 2}}": "trainings.scaled: unknown key 1",
    "trainings: 3": "trainings: expected a mapping, found 3",
    "seeds: [1]\ndataset: {}\nseeds: [2]": "mine.yaml, line 3: key seeds is already in line 1",
    "": "mine.yaml: expected a mapping of options, found nothing",
    "- a": "mine.yaml: expected a mapping of options, found a list",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:50])
def test_a_wrong_value_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as raised:
        load(tmp_path, text)
    assert REFUSED[text] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_difference_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "trainings: {}\nvariants: {}") == config.load([SHIPPED])


@given(text=st.text() | st.text("[]{}:,-!&*# \n\t0123456789.abt'\"|>%@`"))
def test_any_text_is_a_configuration_or_one_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError):
        load(Path(folder), text)


def test_paths_may_name_the_home_folder_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    changed = load(
        tmp_path,
        "dataset: {root: ~/crops, damaged: $DISK/damaged.csv, manifest: ~/list.csv}\n"
        "backbones: {vit_b16: {weights: '${DISK}/b16.pt'}}\nruntime: {pack: $DISK/pack}",
    )
    dataset = changed.dataset
    assert (dataset.root, dataset.manifest) == (Path("/home/me/crops"), Path("/home/me/list.csv"))
    assert dataset.damaged == Path("/disk/damaged.csv")
    assert changed.backbones["vit_b16"].file == Path("/disk/b16.pt")
    assert changed.runtime.pack == Path("/disk/pack")


def test_a_cosine_does_not_inherit_steps(tmp_path: Path) -> None:
    changed = load(tmp_path, "trainings: {baseline: {stage2: {schedule: {steps: [4, 5]}}}}")
    steps = {name: options.stage2.schedule.steps for name, options in changed.trainings.items()}
    assert steps["baseline"] == (4, 5)
    assert steps["optimized"] == config.Schedule().steps
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(yaml.safe_dump(changed.model_dump(mode="json")))
    assert config.load([frozen]) == changed, "as the workflow writes it, it reads the same"


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_partial_schedule_keeps_the_other_defaults_of_its_stage(stage: str) -> None:
    default = getattr(config.Training(), stage).schedule
    changed = config.Training.model_validate({stage: {"schedule": {"warmup_epochs": 3}}})
    assert getattr(changed, stage).schedule == default.model_copy(update={"warmup_epochs": 3})


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("", ["config/config.yaml"]),
        ("--configfile a.yaml b.yaml", ["config/config.yaml", "a.yaml", "b.yaml"]),
        ("--config a.yaml --config b.yaml --configfile c.yaml", ["a.yaml", "b.yaml", "c.yaml"]),
    ],
)
def test_files_are_named_as_for_snakemake(line: str, files: list[str]) -> None:
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    assert config.named(parser.parse_args(line.split())) == [Path(file) for file in files]

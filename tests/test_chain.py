"""What holds and what does not, by content: after changes, replacements, copies and moves."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid import config, provenance
from reid.chain import Chain
from reid.cli import main
from reid.config import Config
from reid.paths import Results
from tests import trained
from tests.manifests import describe

RESULTS = Results(Path("results/tiny"))
ONE = ("--seed", "1", "--protocol", "A2G")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one row was measured, by hand."""
    home = tmp_path_factory.mktemp("chain")
    with chdir(home):
        trained.make_home(home)
        run("extract", "--training", "small", *ONE)
        run("retrieve", "--variant", "row", *ONE)
        run("table")
    return home


@pytest.fixture
def home(done: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, as the working directory."""
    shutil.copytree(done, tmp_path / "home")
    with chdir(tmp_path / "home"):
        yield tmp_path / "home"


def run(*verb: str, code: int = 0) -> None:
    assert main([*verb, "--config", "config.yaml"]) == code, verb


def configure(**changes: Mapping[str, Any]) -> Config:
    """Write the configuration with changes; returns it."""
    settings = json.loads(json.dumps(trained.SETTINGS))
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        section = settings
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    return config.load([Path("config.yaml")])


def measured(settings: Config) -> str | None:
    """Why the one number does not hold; None if it does."""
    chain = Chain(settings)
    return chain.why(chain.steps.retrieve("row", 1, "A2G"))


def test_a_number_holds_whatever_the_times_and_places(home: Path) -> None:
    assert measured(configure()) is None
    for path in home.rglob("*"):
        path.touch()
    Path("tiny.safetensors").rename("moved.safetensors")
    Path("data").rename("elsewhere")
    (next(Path("elsewhere/train").iterdir()) / ".DS_Store").touch()
    weights = {"tiny": {"weights": "moved.safetensors"}}
    assert measured(configure(dataset__root="elsewhere", backbones=weights)) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variants__row__flip_tta": False}, "flip_tta: true -> false"),
        ({"trainings__small__clip": {"frames": 2, "height": 32, "width": 32,
                                     "test_sampling": "center"}},
         'extract small seed1 A2G: clip.test_sampling: "first" -> "center"'),
        ({"trainings__small__model": {"prompts": {"depth": 1, "length": 1},
                                      "adapters": {"width": 64}}},
         "stage2 small seed1: model.prompts.depth: 2 -> 1"),
        ({"trainings__small__validation": {"share": 0.25}},
         "stage1 small seed1: validation.share: 0.5 -> 0.25"),
        ({"dataset__check_sizes": False}, "index: check_sizes: true -> false"),
    ],
)  # fmt: skip
def test_another_option_is_named_with_both_values(
    home: Path, change: Mapping[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in str(measured(configure(**change)))
    run("table")
    assert reason in capsys.readouterr().out
    for line in Path("results/tiny/tables/ablation.csv").read_text().splitlines()[1:]:
        assert ",," in line, "a number stands in the table"


def test_other_data_and_other_weights_are_seen(home: Path) -> None:
    person = next(Path("data/train").iterdir())
    (person / f"{person.name}_9999").mkdir()
    assert measured(configure()) == "index: dataset changed"
    (person / f"{person.name}_9999").rmdir()
    assert measured(configure()) is None
    with Path("tiny.safetensors").open("ab") as weights:
        weights.write(b"\0")
    assert measured(configure()) == "stage1 small seed1: weights changed"


def test_a_replaced_artifact_is_refused_where_it_would_be_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = RESULTS.stage("small", 1, 2)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # of equal size
    weights.write_bytes(content)
    run("extract", "--training", "small", *ONE, code=1)
    assert "stage2.safetensors is not the file that its manifest describes" in (
        capsys.readouterr().err
    )
    weights.write_bytes(content[:-8])
    assert "stage2.safetensors is not what its manifest describes" in str(measured(configure()))
    run("retrieve", "--variant", "row", *ONE, code=1)
    assert "run `reid train stage2 --training small --seed 1`" in capsys.readouterr().err


def test_metrics_edited_by_hand_are_no_number(home: Path) -> None:
    path = RESULTS.retrieval("row", 1, "A2G")
    path.write_text(path.read_text().replace("0", "1", 1))
    run("table")
    assert "unreadable" in Path("results/tiny/tables/ablation.md").read_text()


def test_what_a_purge_removed_does_not_contradict_a_number(home: Path) -> None:
    for path in (RESULTS.stage("small", 1, 2), RESULTS.features("small", 1, "A2G")):
        path.unlink()
    shutil.rmtree("data")
    Path("tiny.safetensors").unlink()
    assert measured(configure()) is None


def test_two_labs_get_equal_digests_at_every_step(done: Path, tmp_path: Path) -> None:
    """Another root, other times, another order of work."""
    with chdir(tmp_path):
        trained.make_home(tmp_path)
        for path in sorted(Path("data").rglob("*"), reverse=True):
            path.touch()
        run("index")
        describe(config.load([Path("config.yaml")]))
        run("extract", "--training", "small", *ONE)
        run("retrieve", "--variant", "row", *ONE)
    manifests = sorted((tmp_path / "results").rglob("*.manifest.json"))
    assert len(manifests) >= 5
    for path in manifests:
        if path.name.startswith("ablation"):
            continue
        ours, theirs = provenance.read(path), provenance.read(done / path.relative_to(tmp_path))
        assert ours is not None
        assert theirs is not None
        assert (ours.stamp, ours.outputs) == (theirs.stamp, theirs.outputs), path


def test_diff_prints_options_first_then_code_inputs_and_machine(
    home: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("diff", str(done / "results"), "results")
    assert "0 of" not in capsys.readouterr().out
    configure(variants__row__flip_tta=False, variants__tuned__flip_tta=False)
    run("extract", "--training", "small", *ONE)
    run("diff", str(done / RESULTS.features("small", 1, "A2G")), "results/tiny/features/small")
    printed = capsys.readouterr().out
    assert "flip: true -> false" in printed
    assert "outputs differ" in printed
    run("diff", str(done), "data", code=1)


def test_results_of_an_earlier_version_are_recognized_and_kept(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = RESULTS.run("small", 1) / "manifest.json"
    old.write_text("{}")
    run("extract", "--training", "small", *ONE, code=1)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "(mv results/tiny results/tiny-before)" in error
    assert old.exists()

"""What holds and what does not, by content: after changes, replacements, copies and moves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reid import config, provenance, steps
from reid.chain import IMPORT, Chain, name_of
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


def flip_last_bit(path: Path) -> None:
    """Damage a file but keep its size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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
    Path("elsewhere/.Trash").mkdir()
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


def test_other_data_and_other_weights_are_seen(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "case1_aerial_to_ground/query"):
        person = next(Path("data", part).iterdir())
        (person / f"{person.name}_9999").mkdir()
        assert measured(configure()) == "index: dataset changed"
        run("check", "--frames", "1")
        assert "warning: the index does not hold (dataset changed)" in capsys.readouterr().out
        (person / f"{person.name}_9999").rmdir()
        assert measured(configure()) is None
    flip_last_bit(Path("tiny.safetensors"))
    assert measured(configure()) == "stage1 small seed1: weights changed"


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"a": 1}'])
def test_damaged_memory_of_digests_is_read_again(home: Path, text: str) -> None:
    (memory,) = RESULTS.stamps().glob("digests-*.json")
    memory.write_text(text)
    assert measured(configure()) is None


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("options", "gone", 1, "gone: 1 -> null"),
        ("options", "tuned", None, "tuned: null -> false"),
        ("code", "reid.retrieval.metrics", "0", "code of reid.retrieval.metrics"),
        ("code", "reid.retrieval.metrics", None, "code of reid.retrieval.metrics"),
        ("code", "reid.gone", "0", "code of reid.gone"),
        ("inputs", "gone", "0", "gone is no input any more"),
        ("inputs", "features", None, "features is a new input"),
        ("inputs", "features", "missing", "features changed"),
    ],
)
def test_whatever_differs_from_the_manifest_is_named(
    home: Path, section: str, key: str, value: object, reason: str
) -> None:
    """`value` is what the manifest says, None if nothing."""
    path = RESULTS.retrieval("row", 1, "A2G").with_suffix(".manifest.json")
    manifest = json.loads(path.read_text())
    manifest["stamp"][section][key] = value
    if value is None:
        del manifest["stamp"][section][key]
    path.write_text(json.dumps(manifest))
    assert measured(configure()) == reason


def test_imported_weights_hold_however_trained_but_not_in_another_network(home: Path) -> None:
    path = RESULTS.stage("small", 1, 2).with_suffix(".manifest.json")
    manifest = json.loads(path.read_text())
    stamp = manifest["stamp"]
    stamp["step"] = IMPORT
    path.write_text(json.dumps(manifest))
    settings = configure(trainings__small__stage2={"losses": {"triplet": 2}})
    assert measured(settings) is None
    others = {"seed": 2, "backbone": {}, "model": {}, "clip": {}, "metadata": False}
    for part, key, value in [("options", *other) for other in others.items()] + [
        ("inputs", "weights", "0")
    ]:
        changed = {**stamp, part: {**stamp[part], key: value}}
        path.write_text(json.dumps({**manifest, "stamp": changed}))
        assert str(measured(settings)).startswith(f"stage2 small seed1: {key}")


def test_every_input_of_a_job_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other content of each file in turn: which jobs of seed 2 are told so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "TEMPLATES", Path("templates"))
    settings = config.parse({**trained.SETTINGS, "seeds": [1, 2]}, source="test")
    Path("templates").mkdir()
    Path("templates/page.html").write_text("before")
    Path("tiny.safetensors").write_text("before")
    jobs = Chain(settings).jobs
    for path in (path for job in jobs for path in job.outputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    describe(settings)
    assert {Chain(settings).problem(job) for job in jobs} == {None}
    trainings = [job for job in jobs if job.step in ("stage1", "stage2")]
    assert len({name_of(Chain(settings).stamp(job)) for job in trainings}) == 4
    for (path, role), told in EDGES.items():
        path.write_text("after")
        if path in Chain(settings).makers:
            describe(settings, Chain(settings).makers[path].step)
        chain = Chain(settings)
        found = {
            job.name.replace(" small", "").replace(" seed2", "")
            for job in jobs
            if "seed1" not in job.name and f"{role} changed" in str(chain.problem(job)).split("; ")
        }
        assert found == told, path
        path.write_text("before")
        describe(settings)


EXTRACTIONS = {f"extract {split}" for split in ("A2G", "G2A", "A2A", "validation")}
EDGES = {
    (RESULTS.index("A2G"), "index"): {"extract A2G", "retrieve row A2G", "retrieve tuned A2G"},
    (RESULTS.index("train"), "index"): {"stage1", "stage2", "extract validation", "tune tuned"},
    (RESULTS.stage("small", 2, 1), "stage1"): {"stage2"},
    (RESULTS.stage("small", 2, 2), "stage2"): EXTRACTIONS,
    (RESULTS.features("small", 2, "A2G"), "features"): {"retrieve row A2G", "retrieve tuned A2G"},
    (RESULTS.features("small", 2, "validation"), "features"): {"tune tuned"},
    (RESULTS.tuned("tuned", 2), "tuning"): {
        f"retrieve tuned {split}" for split in ("A2G", "G2A", "A2A")
    },
    (RESULTS.retrieval("row", 2, "A2G"), "row seed 2 A2G"): {"table", "report"},
    (Path("tiny.safetensors"), "weights"): {"stage1", "stage2"} | EXTRACTIONS,
    (Path("templates/page.html"), "template page.html"): {"report"},
}
"""A file and its role -> the jobs that read it."""


def test_every_output_of_a_job_counts(home: Path) -> None:
    settings, path = configure(), RESULTS.index("A2A")
    index = Chain(settings).steps.index()
    path.write_bytes(path.read_bytes() + b"more")
    assert Chain(settings).problem(index) == f"{path} is not what its manifest describes"
    path.unlink()
    assert Chain(settings).problem(index) == f"{path} is missing"
    assert measured(settings) is None, "a number of another protocol"


def test_a_job_that_fails_vouches_for_nothing(home: Path) -> None:
    RESULTS.features("small", 1, "A2G").write_bytes(b"damaged")
    describe(configure(), "extract")
    run("retrieve", "--variant", "row", *ONE, code=1)
    assert measured(configure()) == "features changed"


def test_a_replaced_artifact_is_refused_where_it_would_be_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = RESULTS.stage("small", 1, 2)
    content = weights.read_bytes()
    for replaced in (content[:-1] + bytes([content[-1] ^ 1]), content[:-8]):
        weights.write_bytes(replaced)
        run("extract", "--training", "small", *ONE, code=1)
        words = "stage2.safetensors is not what its manifest describes"
        assert words in capsys.readouterr().err
        assert words in str(measured(configure()))
    run("retrieve", "--variant", "row", *ONE, code=1)
    assert "run `reid train stage2 --training small --seed 1`" in capsys.readouterr().err


def test_metrics_edited_by_hand_are_no_number(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = RESULTS.retrieval("row", 1, "A2G")
    path.write_text(path.read_text().replace("0", "1", 1))
    run("table")
    assert f"A2G: outdated: {path} is not what its manifest describes" in capsys.readouterr().out


def test_what_a_purge_removed_does_not_contradict_a_number(home: Path) -> None:
    settings = configure()
    kept = Chain(settings).work(Chain(settings).steps.stage("small", 1, 1))
    for path in (RESULTS.stage("small", 1, 2), RESULTS.features("small", 1, "A2G")):
        path.unlink()
    shutil.rmtree("data")
    Path("tiny.safetensors").unlink()
    assert measured(settings) is None
    assert Chain(settings).work(Chain(settings).steps.stage("small", 1, 1)) == kept
    assert measured(configure(variants__row__flip_tta=False)) == "flip_tta: true -> false"


def test_two_labs_get_equal_digests_at_every_step(done: Path, tmp_path: Path) -> None:
    """Another clone, another root, other times, another order of work."""
    clone = tmp_path / "clone"
    shutil.copytree(trained.ROOT / "reid", clone / "reid")
    with chdir(tmp_path):
        trained.make_home(tmp_path)
        for path in sorted(Path("data").rglob("*"), reverse=True):
            path.touch()
        threads = str(torch.get_num_threads())
        for verb in (["index"], ["extract", "--training", "small", *ONE],
                     ["retrieve", "--variant", "row", *ONE]):  # fmt: skip
            subprocess.run(
                [sys.executable, "-m", "reid", *verb, "--config", "config.yaml"],
                env={**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": threads},
                check=True,
            )
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


@pytest.mark.parametrize("name", ["manifest.json", "checkpoints"])
def test_results_of_an_earlier_version_are_recognized_and_kept(
    home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = RESULTS.run("small", 1) / name
    old.write_text("{}")
    run("extract", "--training", "small", *ONE, code=1)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "(mv results/tiny results/tiny-before)" in error
    assert old.exists()

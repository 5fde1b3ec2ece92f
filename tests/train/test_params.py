"""`reid params`: the table of what trains, without allocating a network."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from reid.cli import main
from reid.data import index
from tests.clips import TINY, state_dict
from tests.trees import make_tree

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


def test_table_of_the_largest_training(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--training", "scaled", "--geometry", "vit_l14", "--classes", "185"]
    assert main(["params", "--config", str(CONFIG), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "24 blocks" in lines[0]
    assert "185 identities" in lines[0]
    rows = {line[:24].strip(): line[24:].split() for line in lines if line}
    header = ["tensors", "parameters", "trainable", "lr", "decay"]
    assert rows["group"] == header
    assert rows["contexts"] == ["3", "580,608", "yes", "2.00e-04", "1.00e-04"]
    assert rows["text tower"] == ["148", "85,704,960", "no"]
    assert rows["camera prompts"] == ["1", "110,592", "yes", "1.00e-04", "2.50e-04"]
    assert rows["blocks 22-23"] == ["12", "25,169,920", "yes", "1.00e-05", "2.50e-04"]
    assert rows["blocks 22-23 (bias)"] == ["12", "22,528", "yes", "1.00e-05", "1.00e-04"]
    assert rows["tower"] == ["272", f"{303_869_952 - 25_192_448:,}", "no"]
    # The paper reading (57.2 M) and what is ours beside it: metadata tables and QATW's betas.
    assert rows["trainable"] == ["324", f"{57_181_440 + 9 * 4 * 42 * 1024 + 2:,}"]


def names_and_trainable(out: str) -> list[tuple[str, list[str]]]:
    """Names of groups, and what stands under `trainable` and after it."""
    lines = [line for line in out.splitlines()[1:] if line[24:].strip() and "group" not in line]
    return [(line[:24].strip(), line[24:].split()[2:]) for line in lines]


def test_nothing_trains_in_stages_of_no_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--training", "clip_b16", "--geometry", "vit_b16", "--classes", "185"]
    assert main(["params", "--config", str(CONFIG), *arguments]) == 0
    groups = names_and_trainable(capsys.readouterr().out)
    assert len(groups) == 9
    assert all(rest in ([], ["no"]) for _, rest in groups)


def test_no_group_is_named_twice(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--training", "scaled", "--geometry", "vit_l14", "--classes", "185"]
    assert main(["params", "--config", str(CONFIG), *arguments]) == 0
    groups = names_and_trainable(capsys.readouterr().out)
    names = [name for name, rest in groups if rest]
    assert "necks (rest)" in names
    assert len(set(names)) == len(names)


def test_geometry_of_the_file_and_identities_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tree(Path("data"), train=3)
    save_file(state_dict(TINY), "tiny.safetensors")
    content = {
        "dataset": {"name": "small", "root": "data"},
        "backbones": {"vit_b16": {"weights": "tiny.safetensors"}},
        "trainings": {"plain": {"model": {"prompts": {"length": 0}}}},
        "variants": {"row": {"training": "plain", "label": "row"}},
    }
    Path("config.yaml").write_text(yaml.safe_dump(content))
    command = ["params", "--config", "config.yaml", "--training"]
    assert main([*command, "plain"]) == 1
    assert "run `reid index`, or give --classes" in capsys.readouterr().err
    index.build(Path("data")).write(Path("results/small/index"))
    assert main([*command, "plain"]) == 0
    out = capsys.readouterr().out
    assert "tiny.safetensors (width 128, 3 blocks, patch 16), 3 identities" in out
    assert f"{'heads':<24} {2:>7} {3 * (128 + 64):>12,}" in out
    assert main([*command, "plane"]) == 1
    assert "did you mean plain?" in capsys.readouterr().err
    assert main([*command, "plain", "--classes", "0"]) == 1
    assert "--classes is 0" in capsys.readouterr().err

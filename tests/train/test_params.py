"""`reid params`: the table of what trains, without allocating a network."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from reid.cli import main
from reid.data import index
from tests.clips import TINY, state_dict
from tests.trees import make_tree

CONFIG = Path(__file__).parents[2] / "config"
BASE, BIAS, BLOCKS = ("1.00e-04", "2.50e-04"), ("2.00e-04", "1.00e-04"), "1.00e-05"
# By hand from MODEL sections 1, 2 and 5, and the learning rates of Tables 2 and 4. Metadata tables
# are 9 blocks x P x (19 + 19 + 4) rows x d; the paper's 57.2 M lacks them and QATW's two betas.
# `blocks` is a tenth of the base rate: the last two of 24, where the released code has 10 and 11.
TABLES = {
    ("baseline", "vit_b16"): {
        "contexts": (387_072, "3.50e-04", "1.00e-04"),
        "text tower": (38_131_200,),
        "adapters": (12_582_912, *BASE),
        "adapters (bias)": (36_864, *BIAS),
        "camera prompts": (20_736, *BASE),
        "metadata prompts": (9 * 1 * 42 * 768, *BASE),
        "necks": (1_280, *BASE),
        "heads": (236_800, *BASE),
        "necks (rest)": (1_280,),
        "tower": (86_140_416,),
    },
    ("scaled", "vit_l14"): {
        "contexts": (580_608, "2.00e-04", "1.00e-04"),
        "text tower": (85_704_960,),
        "adapters": (31_457_280, *BASE),
        "adapters (bias)": (86_016, *BIAS),
        "camera prompts": (110_592, *BASE),
        "metadata prompts": (9 * 4 * 42 * 1024, *BASE),
        "pools": (1_792 + 2, *BASE),
        "necks": (1_792, *BASE),
        "heads": (331_520, *BASE),
        "blocks 22-23": (25_169_920, BLOCKS, "2.50e-04"),
        "blocks 22-23 (bias)": (22_528, BLOCKS, "1.00e-04"),
        "necks (rest)": (1_792,),
        "tower": (303_869_952 - 25_192_448,),
    },
}
TRAINABLE = {"baseline": 13_168_896, "scaled": 57_181_440 + 1_548_288 + 2}


def params(training: str, geometry: str) -> int:
    files = [f"--config={CONFIG / name}" for name in ("config.yaml", "released.yaml")]
    options = ["--training", training, "--geometry", geometry, "--classes", "185"]
    return main(["params", *files, *options])


def rows(table: str) -> list[tuple[str, list[str]]]:
    """Names of groups, and the columns after them."""
    lines = [line for line in table.splitlines()[1:] if line[24:].strip()]
    return [(line[:24].strip(), line[24:].split()) for line in lines]


@pytest.mark.parametrize(("training", "geometry"), TABLES)
def test_sizes_and_rates_of_every_group(
    training: str, geometry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert params(training, geometry) == 0
    table = rows(capsys.readouterr().out)
    groups = [(name, columns) for name, columns in table if "yes" in columns or "no" in columns]
    expected = [
        (name, [f"{size:,}", *(["yes", *rates] if rates else ["no"])])
        for name, (size, *rates) in TABLES[training, geometry].items()
    ]
    assert [(name, columns[1:]) for name, columns in groups] == expected
    sizes = [columns[1] for name, columns in table if name == "trainable"]
    assert sizes[1] == f"{TRAINABLE[training]:,}"


def test_nothing_trains_in_stages_of_no_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    assert params("clip_b16", "vit_b16") == 0
    table = rows(capsys.readouterr().out)
    assert len([name for name, columns in table if columns[2:] == ["no"]]) > 3
    assert not any("yes" in columns for _, columns in table)


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

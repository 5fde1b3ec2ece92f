"""A dataset in another layout through the whole line of commands: as many cameras as it has."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from reid import config
from reid.data.stored import count_cameras, read_split, write_split
from tests.data.layouts import make_g2a, make_mars
from tests.golden.experiment import working_in
from tests.manifests import describe
from tests.runs import STAGE1, STAGE2, TRAINING, make_lab

ONE_EPOCH = {
    **TRAINING,
    "stage1": {**TRAINING["stage1"], "epochs": 1},
    "stage2": {**TRAINING["stage2"], "epochs": 1},
}


@pytest.mark.parametrize(
    ("layout", "make", "protocol", "cameras"),
    [("mars", make_mars, "G2G", 6), ("g2a-vreid", make_g2a, "A2G", 2)],
)
def test_from_index_to_table(tmp_path, layout, make, protocol, cameras):
    lab = make_lab(tmp_path)
    make(tmp_path / "other")
    lab.configure(ONE_EPOCH)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    content["dataset"] = {"name": "other", "root": "other", "layout": layout}
    content["dataset"] |= {"protocols": [protocol]}
    content["variants"]["row"]["rerank"] = {"k1": 3, "k2": 2, "lambda_value": 0.3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    row = ("--variant", "row", "--seed", "1", "--protocol", protocol)
    small = ("--training", "small", "--seed", "1", "--protocol", protocol)
    verbs = (("index",), ("check",), STAGE1, STAGE2, ("extract", *small), ("retrieve", *row))
    for verb in (*verbs, ("table",)):
        assert lab.finish(*verb) == 0, lab.log()
    results = tmp_path / "results" / "other"
    assert count_cameras(results / "index" / "train.parquet") == cameras
    with safe_open(results / "train/small/seed1/stage2.safetensors", "pt") as opened:
        assert opened.get_tensor("prompts.camera").shape[2] == cameras
    path = results / "index" / f"{protocol}.parquet"
    write_split(path, read_split(path), cameras=("only one",))
    with working_in(tmp_path):
        describe(config.load([Path("config.yaml")]))
    assert lab.finish("extract", *small) == 1
    assert f"small was trained for {cameras} cameras, results/other/index" in lab.log()
    measured = json.loads((results / f"retrieval/row/seed1/{protocol}.json").read_text())
    assert 0 < measured["mAP"] <= 1
    assert protocol in (results / "tables" / "ablation.md").read_text()

"""`reid index` through the command line."""

import yaml

from reid.cli import main
from tests.trees import EXPERIMENT, make_tree


def run(tmp_path, monkeypatch, **dataset):
    monkeypatch.chdir(tmp_path)
    options = {"name": "tiny", "root": str(tmp_path / "data"), **dataset}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": options, **EXPERIMENT}))
    return main(["index", "--config", "config.yaml"])


def test_writes_every_part(tmp_path, monkeypatch):
    make_tree(tmp_path / "data")
    assert run(tmp_path, monkeypatch) == 0
    written = {path.name for path in (tmp_path / "results" / "tiny" / "index").iterdir()}
    assert written == {
        *("train.parquet", "A2G.parquet", "G2A.parquet", "A2A.parquet"),
        *("rejected.csv", "summary.json"),
    }


def test_too_many_rejected_files_fail_after_rejected_csv(tmp_path, monkeypatch, capsys):
    make_tree(tmp_path / "data")
    (tmp_path / "data" / "train" / "0001" / "0001_0999").mkdir()
    assert run(tmp_path, monkeypatch) == 1
    error = capsys.readouterr().err
    assert "train/0001/0001_0999: empty tracklet" in error
    assert len(error.splitlines()) == 1
    folder = tmp_path / "results" / "tiny" / "index"
    assert "0001_0999,empty tracklet" in (folder / "rejected.csv").read_text()
    assert not (folder / "train.parquet").exists()
    assert run(tmp_path, monkeypatch, max_rejected_share=0.1) == 0


def test_bad_roots_fail_with_one_line(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'data'} is not a folder")
    (tmp_path / "data").mkdir()
    assert run(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'data' / 'train'} is not a")

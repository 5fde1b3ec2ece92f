"""The verbs after training, one after the other on real files: held-out features to the table."""

import json

import pytest
from safetensors.numpy import load_file

from reid.artifacts import Results
from reid.cli import main
from reid.data.index import read_split
from reid.holdout import hold_out
from tests import trained

ROW = ("--config", "config.yaml", "--variant", "tuned", "--seed", "1")
RUN = ("--config", "config.yaml", "--training", "small", "--seed", "1")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.make_home(tmp_path)
    return Results.of("tiny")


def test_from_extraction_to_the_table(results, capsys):
    for protocol in ("validation", "A2G", "G2A", "A2A"):
        assert main(["extract", *RUN, "--protocol", protocol]) == 0
    train = read_split(results.index("train"))
    held = hold_out({t.identity for t in train}, share=0.5, seed=0)
    stored = load_file(results.features("small", 1, "validation"))
    assert len(stored["features"]) == sum(t.identity in held for t in train) == 12
    assert stored["heights"].shape == (12,)
    assert "frame_weights" not in stored  # mean pooling

    assert main(["tune", *ROW]) == 0
    for protocol in ("A2G", "G2A", "A2A"):
        assert main(["retrieve", *ROW, "--protocol", protocol]) == 0
    report = json.loads(results.retrieval("tuned", 1, "A2G").read_text())
    chosen = json.loads(results.tuned("tuned", 1).read_text())["chosen"]
    assert {key: report["rerank"][key] for key in chosen} == chosen
    assert {e["attribute"] for e in report["breakdown"]} >= {"altitude", "pixel height"}
    assert main(["table", "--config", "config.yaml"]) == 0
    assert main(["submission", *ROW]) == 0
    assert main(["score", str(results.submission("tuned", 1)), "--config", "config.yaml"]) == 0
    printed = capsys.readouterr().out
    means = [
        json.loads(results.retrieval("tuned", 1, protocol).read_text())["mAP"]
        for protocol in ("A2G", "G2A", "A2A")
    ]
    macro = f"{100 * sum(means) / 3:.2f}"
    assert any(macro in line for line in printed.splitlines() if line.startswith("tuned"))
    assert any(macro in line for line in printed.splitlines() if line.startswith("macro mean"))


def test_validation_is_no_protocol_of_retrieval(results, capsys):
    with pytest.raises(SystemExit):
        main(["retrieve", *ROW, "--protocol", "validation"])
    assert "invalid choice: 'validation'" in capsys.readouterr().err
    for verb, known in (("retrieve", "A2G, G2A, A2A"), ("extract", "A2G, G2A, A2A, validation")):
        row = {"retrieve": ROW, "extract": RUN}[verb]
        assert main([verb, *row, "--protocol", "ALL"]) == 1
        assert f"(known: {known})" in capsys.readouterr().err

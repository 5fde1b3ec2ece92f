"""The verbs after training, one after the other on real files: features to scores."""

import json

import pytest
from safetensors.numpy import load_file

from reid.cli import main
from reid.paths import Results
from tests import trained

ROW = ("--config", "config.yaml", "--variant", "tuned", "--seed", "1")
RUN = ("--config", "config.yaml", "--training", "small", "--seed", "1")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.make_home(tmp_path)
    return Results.of("tiny")


def test_from_extraction_to_the_scores(results, capsys):
    for protocol in ("validation", "A2G", "G2A", "A2A"):
        assert main(["extract", *RUN, "--protocol", protocol]) == 0
    stored = load_file(results.features("small", 1, "validation"))
    assert stored["heights"].shape == (len(stored["features"]),)
    assert "frame_weights" not in stored  # mean pooling
    assert main(["tune", *ROW]) == 0
    maps = []
    for protocol in ("A2G", "G2A", "A2A"):
        assert main(["retrieve", *ROW, "--protocol", protocol]) == 0
        report = json.loads(results.retrieval("tuned", 1, protocol).read_text())
        maps.append(report["mAP"])
    chosen = json.loads(results.tuned("tuned", 1).read_text())["chosen"]
    assert {key: report["rerank"][key] for key in chosen} == chosen
    assert {e["attribute"] for e in report["breakdown"]} >= {"altitude", "pixel height"}
    assert main(["submission", *ROW]) == 0
    capsys.readouterr()
    assert main(["score", str(results.submission("tuned", 1)), "--config", "config.yaml"]) == 0
    _, macro = (line for line in capsys.readouterr().out.splitlines() if line.startswith("macro"))
    assert f"{100 * sum(maps) / 3:.2f}" in macro  # the second is by camera


def test_names_that_the_configuration_does_not_know(results, capsys):
    with pytest.raises(SystemExit):
        main(["retrieve", *ROW, "--protocol", "validation"])
    assert "invalid choice: 'validation'" in capsys.readouterr().err
    assert main(["retrieve", *ROW[:3], "tunde", *ROW[4:], "--protocol", "A2G"]) == 1
    assert "did you mean tuned" in capsys.readouterr().err
    for row, known in ((ROW, "A2G, G2A, A2A"), (RUN, "A2G, G2A, A2A, validation")):
        verb = "retrieve" if row is ROW else "extract"
        assert main([verb, *row, "--protocol", "ALL"]) == 1
        assert f"(known: {known})" in capsys.readouterr().err

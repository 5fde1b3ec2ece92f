"""Round trip: retrieve, write the challenge's csv, score it: the same numbers."""

import csv
import json

import pytest

from reid.cli import main
from reid.errors import UserError
from reid.retrieval import retrieve, scoring, submission
from tests.retrieval import worlds


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings()
    return options, worlds.make(options)


def rows_of(path):
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("variant", ["good", "rerank"])
def test_round_trip(world, variant):
    options, results = world
    path = submission.run(options, variant, 1)
    assert path == results.submission(variant, 1)
    cases = submission.read(path)
    assert [case.name for case in cases] == list(submission.CASES.values())
    for case, protocol in zip(cases, submission.CASES, strict=True):
        retrieve.run(options, variant, 1, protocol)
        report = json.loads(results.retrieval(variant, 1, protocol).read_text())
        tracklets = worlds.protocol_tracklets(protocol)
        by_camera = submission.score_by_camera(case, tracklets)
        for rule, key in (("standard", "mAP"), ("trapezoid", "mAP_trapezoid")):
            assert by_camera.metrics(ap=rule).mAP == pytest.approx(report[key], abs=1e-12)
            by_number = submission.score_by_number(case).metrics(ap=rule)
            plain = report["without_junk_rule"][key]  # here no two tracklets share a number
            assert by_number.mAP == pytest.approx(plain, abs=1e-12)


def test_rows_are_as_the_challenge_has_them(world):
    options, _ = world
    rows = rows_of(submission.run(options, "good", 1))
    assert list(rows[0]) == ["row_id", "case", "query_tracklet", "ranked_gallery_tracklets"]
    assert [int(row["row_id"]) for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["case"] == "Case 1: Aerial to Ground"
    first = [row["query_tracklet"] for row in rows if row["case"] == rows[0]["case"]]
    assert first == sorted(first)
    gallery = {t.name for t in worlds.protocol_tracklets("A2G") if t.subset == "gallery"}
    ranked = rows[0]["ranked_gallery_tracklets"].split(" ")
    assert set(ranked) == gallery
    assert len(ranked) == len(gallery)


def test_junk_by_number_is_the_public_scorers_rule(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(
        "row_id,case,query_tracklet,ranked_gallery_tracklets\n"
        "1,Case 1: Aerial to Ground,0001_0007,0001_0007 0002_0001 0001_0008\n"
    )
    [case] = submission.read(path)
    scores = submission.score_by_number(case)
    assert scores.metrics().mAP == pytest.approx(1 / 2)  # its own number is junk
    assert scores.metrics(ap="trapezoid").mAP == pytest.approx((0 + 1 / 2) / 2)
    assert scores.metrics(cameras=False).mAP == pytest.approx((1 + 2 / 3) / 2)


def test_scorer_prints_both_rules_and_both_averages(world, capsys):
    options, _ = world
    path = submission.run(options, "good", 1)
    scoring.run(options, path)
    printed = capsys.readouterr().out
    for text in ("public scorer", "Eq. 5", "micro mean", "Case 3: Aerial to Aerial", "trapez."):
        assert text in printed
    other = worlds.settings(dataset={"name": "elsewhere", "root": "data"})
    scoring.run(other, path)
    printed = capsys.readouterr().out
    assert "junk by camera" not in printed
    assert "run `reid index`" in printed


HEAD = "row_id,case,query_tracklet,ranked_gallery_tracklets\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column case"),
        ("row_id,case\n1,x\n", "no column query_tracklet"),
        (HEAD, "has no rows"),
        (HEAD + "1,c,0001_1,0001_2 0001_2\n", "line 2: ranks 2 tracklets .1 different."),
        (HEAD + "1,c,0001_1,0001_2 0002_3\n2,c,0001_4,0001_2\n", "line 3: ranks 1 tracklets"),
        (HEAD + "1,c,0001_1,person\n", "tracklet name 'person' is not PID_NUMBER"),
        (HEAD + "1,c,7,0001_2\n", "tracklet name '7' is not"),
        (HEAD + "1,c,0001_1\n", "line 2: expected 4 columns"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        submission.read(path)


def test_missing_file_and_foreign_tracklets(world, tmp_path):
    options, _ = world
    with pytest.raises(UserError, match="does not exist"):
        submission.read(tmp_path / "none.csv")
    path = tmp_path / "foreign.csv"
    path.write_text(HEAD + "1,Case 1: Aerial to Ground,0999_0001,0999_0002\n")
    with pytest.raises(UserError, match="the index has no tracklet 0999_0001"):
        scoring.run(options, path)


def test_two_tracklets_of_one_name_are_an_error():
    tracklet = worlds.tracklet(101, 0, 1, "gallery")
    with pytest.raises(UserError, match="2 gallery tracklets are called 0101_0001"):
        list(submission.rankings([[0.0, 1.0]], [tracklet], [tracklet, tracklet]))
    with pytest.raises(UserError, match="2 query tracklets are called 0101_0001"):
        list(submission.rankings([[0.0], [1.0]], [tracklet, tracklet], [tracklet]))


def test_every_seed_has_its_own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings(seeds=[1, 2])
    worlds.make(options)
    first, second = (submission.run(options, "good", seed) for seed in (1, 2))
    assert first != second
    assert rows_of(first) != rows_of(second)


@pytest.mark.parametrize("protocols", [["ALL"], ["G2G", "ALL"]])
def test_protocols_without_a_case_have_no_submission(tmp_path, monkeypatch, protocols):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings(dataset={"name": "small", "root": "data", "protocols": protocols})
    message = f"{', '.join(protocols)} has no case in the challenge .A2G is Case 1: Aerial"
    with pytest.raises(UserError, match=message):
        submission.run(options, "good", 1)
    assert not any(tmp_path.iterdir())


def test_protocols_without_a_case_are_named_as_left_out(world, capsys):
    _, results = world
    protocols = ["A2G", "G2G", "ALL"]
    options = worlds.settings(dataset={"name": "small", "root": "data", "protocols": protocols})
    path = submission.run(options, "good", 1)
    assert path == results.submission("good", 1)
    assert {row["case"] for row in rows_of(path)} == {"Case 1: Aerial to Ground"}
    assert capsys.readouterr().out == "left out, no case in the challenge: G2G, ALL\n"


def test_verbs(world, capsys, tmp_path):
    options, results = world
    (tmp_path / "c.yaml").write_text(options.model_dump_json())
    assert main(["submission", "--config", "c.yaml", "--variant", "good"]) == 0
    assert capsys.readouterr().out.strip() == str(results.submission("good", 1))
    assert main(["score", str(results.submission("good", 1)), "--config", "c.yaml"]) == 0
    assert "macro mean" in capsys.readouterr().out
    assert main(["score", "nothing.csv", "--config", "c.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing.csv does not exist")

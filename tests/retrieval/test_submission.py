"""Round trip: retrieve, write the challenge's csv, score it: the same numbers."""

import csv
import json

import numpy as np
import pytest

from reid.cli import main
from reid.errors import UserError
from reid.retrieval import retrieve, submission
from tests.retrieval import worlds


def rows_of(path):
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("variant", ["good", "rerank"])
def test_round_trip(world, variant):
    options, results = world
    path = submission.run(options, variant, 1)
    assert path == results.submission(variant, 1)
    indices = {
        case: worlds.protocol_tracklets(protocol) for protocol, case in submission.CASES.items()
    }
    cases = submission.read(path, indices)
    assert [case.name for case in cases] == list(submission.CASES.values())
    for case, protocol in zip(cases, submission.CASES, strict=True):
        retrieve.run(options, variant, 1, protocol)
        report = json.loads(results.retrieval(variant, 1, protocol).read_text())
        tracklets = worlds.protocol_tracklets(protocol)
        by_camera = submission.score_case(case, tracklets)
        by_number = submission.score_case(case)
        for rule, key in enumerate(("mAP", "mAP_trapezoid")):
            assert by_camera[rule].mAP == pytest.approx(report[key], abs=1e-12)
            plain = report["without_junk_rule"][key]  # here no two tracklets share a number
            assert by_number[rule].mAP == pytest.approx(plain, abs=1e-12)


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
    [case] = submission.read(path, {})
    standard, trapezoid = submission.score_case(case)
    assert standard.mAP == pytest.approx(1 / 2)  # the tracklet of its own number is junk
    assert trapezoid.mAP == pytest.approx((0 + 1 / 2) / 2)


def test_scorer_prints_both_rules_and_both_averages(world, capsys):
    options, _ = world
    path = submission.run(options, "good", 1)
    submission.score(options, path)
    printed = capsys.readouterr().out
    for text in ("public scorer", "Eq. 5", "micro mean", "Case 3: Aerial to Aerial", "trapez."):
        assert text in printed
    other = worlds.settings(dataset={"name": "elsewhere", "root": "data"})
    submission.score(other, path)
    printed = capsys.readouterr().out
    assert "junk by camera" not in printed
    names = ", ".join(submission.CASES.values())
    assert f"No index of {names} here" in printed
    assert "not verified that all queries and gallery tracklets are there" in printed


HEAD = "row_id,case,query_tracklet,ranked_gallery_tracklets\n"
CASE = submission.CASES["A2G"]
C = submission.CASES["A2A"]
KNOWN = "expected one of Case 1: Aerial to Ground; Case 2: Ground to Aerial; Case 3: Aerial to"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "has no rows"),
        (f"1,{C},0001_1,0001_2 0001_2", "2, query 0001_1: ranks 2 tracklets .1 different."),
        (f"1,{C},0001_1,0001_2 0002_3\n2,{C},0001_4,0001_2", "line 3, .* ranks 1 tracklets"),
        (f"1,{C},0001_1,person", "tracklet name 'person' is not PID_NUMBER"),
        (f"1,{C},7,0001_2", "tracklet name '7' is not"),
        (f"1,{C},0001_1", "line 2: expected 4 columns"),
        (f"1,{C},0001_1,0001_2,0001_3", "line 2: expected 4 columns"),
        (f"1,{C},0001_1,", "line 2, query 0001_1: ranks no tracklet"),
        (f"\n1,{C},0001_1,", "line 3, query 0001_1: ranks no tracklet"),
        (f"1,{C},0001_1,0001_2\n" * 2, "line 3: query 0001_1 of Case 3: .* was there before"),
        ("1,Case 9,0001_1,0001_2", f"line 2: unknown case 'Case 9': {KNOWN}"),
        (f"1, {C},0001_1,0001_2", f"line 2: unknown case ' {C}': {KNOWN}"),
    ],
)
def test_bad_rows_are_one_clear_error(tmp_path, rows, message):
    path = tmp_path / "bad.csv"
    path.write_text(HEAD + rows)
    with pytest.raises(UserError, match=message):
        submission.read(path, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column case"),
        (b"row_id,case\n1,x\n", "no column query_tracklet"),
        (b"\xff\xfe\x00", "is not text"),
        (None, "expected a submission csv: .*Is a directory"),
    ],
)
def test_files_that_are_no_table_are_one_clear_error(tmp_path, content, message):
    path = tmp_path if content is None else tmp_path / "s.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        submission.read(path, {})


def replaced(rows, row, **changes):
    return [*rows[:row], {**rows[row], **changes}, *rows[row + 1 :]]


def without(rows, text):
    return [row for row in rows if text not in row["case"] + row["query_tracklet"]]


GALLERY = "ranked_gallery_tracklets"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows + rows[:1], "line 74: query 0101_0100 of Case 1: .* was there before"),
        (lambda rows: rows[:10], "26 of the 36 queries of Case 1: .* have no row, first 0102_0201"),
        (lambda rows: without(rows, "0106_"), "6 of the 36 .* have no row, first 0106_0100"),
        (lambda rows: without(rows, "Case 2"), "18 of the 18 queries of Case 2: .* have no row"),
        (
            lambda rows: [{**row, GALLERY: row[GALLERY][: 7 * 10 - 1]} for row in rows],
            r"line 2, query 0101_0100: ranks 7 tracklets \(7 different\), expected each of the 18",
        ),
        (
            lambda rows: replaced(rows, 3, **{GALLERY: rows[3][GALLERY][:-9] + "0999_0002"}),
            "line 5, query 0101_0200: ranks 18 .*; 0999_0002 is not one of them",
        ),
        (
            lambda rows: replaced(rows, 0, query_tracklet="0999_0001"),
            "line 2: 0999_0001 is no query of Case 1: Aerial to Ground",
        ),
    ],
)
def test_a_file_that_is_not_whole_is_an_error(world, tmp_path, change, message):
    options, _ = world
    rows = change(rows_of(submission.run(options, "good", 1)))
    path = tmp_path / "s.csv"
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, submission.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError, match=message):
        submission.score(options, path)


def test_a_case_without_positives_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.csv"
    path.write_text(HEAD + f"1,{CASE},0001_1,0001_2 0002_1\n1,{C},0001_1,0002_2 0003_1\n")
    submission.score(worlds.settings(), path)
    printed = capsys.readouterr().out
    assert f"{C}: no query has a positive by this rule, so no macro mean." in printed
    assert f"{CASE}: no query" not in printed
    assert "nan" not in printed
    means = [line.split()[-2:] for line in printed.splitlines() if " mean of " in line]
    assert means == [["-", "-"], ["100.00", "100.00"]]  # macro, micro


def test_rows_are_ordered_by_identity_and_name_and_ties_by_gallery_order():
    numbers = ((102, 1), (101, 2), (101, 1))
    queries, gallery = (
        [worlds.tracklet(identity, 0, number, subset) for identity, number in numbers]
        for subset in ("query", "gallery")
    )
    distances = np.float32([[3, 1, 2], [0, 0, 0], [2, 2, 1]])
    rows = list(submission.ranked_names(distances, queries, gallery))
    names = [tracklet.name for tracklet in gallery]
    assert [query for query, _ in rows] == sorted(names)
    assert [ranked for _, ranked in rows] == [
        [names[place] for place in places] for places in ([2, 0, 1], [0, 1, 2], [1, 2, 0])
    ]


def test_two_tracklets_of_one_name_are_an_error():
    tracklet = worlds.tracklet(101, 0, 1, "gallery")
    with pytest.raises(UserError, match="2 gallery tracklets are called 0101_0001"):
        list(submission.ranked_names([[0.0, 1.0]], [tracklet], [tracklet, tracklet]))
    with pytest.raises(UserError, match="2 query tracklets are called 0101_0001"):
        list(submission.ranked_names([[0.0], [1.0]], [tracklet, tracklet], [tracklet]))


def test_every_seed_has_its_own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings(seeds=[1, 2])
    worlds.make(options)
    first, second = (submission.run(options, "good", seed) for seed in (1, 2))
    assert first != second
    assert rows_of(first) != rows_of(second)


def test_protocols_that_are_no_case_of_the_challenge(world, capsys):
    _, results = world
    dataset = {"name": "small", "root": "data"}
    none = worlds.settings(dataset={**dataset, "protocols": ["G2G", "ALL"]})
    with pytest.raises(UserError, match=r"the challenge has no case for G2G, ALL .A2G is Case 1"):
        submission.run(none, "good", 1)
    assert not results.submission("good", 1).exists()
    one = worlds.settings(dataset={**dataset, "protocols": ["A2G", "G2G", "ALL"]})
    assert submission.run(one, "good", 1) == results.submission("good", 1)
    assert {row["case"] for row in rows_of(results.submission("good", 1))} == {CASE}
    assert capsys.readouterr().out == "left out: the challenge has no case for G2G, ALL\n"


def test_verbs(world, capsys, tmp_path):
    options, results = world
    (tmp_path / "c.yaml").write_text(options.model_dump_json())
    assert main(["submission", "--config", "c.yaml", "--variant", "good"]) == 0
    assert capsys.readouterr().out == f"wrote {results.submission('good', 1)}\n"
    assert main(["score", str(results.submission("good", 1)), "--config", "c.yaml"]) == 0
    assert "macro mean" in capsys.readouterr().out
    assert main(["score", "nothing.csv", "--config", "c.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing.csv does not exist")

"""Round trip: retrieve, write the challenge's csv, score it: the same numbers."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reid.cli import main
from reid.errors import UserError
from reid.retrieval import retrieve, submission
from tests.retrieval import worlds

CASE, CASE_2, CASE_3 = submission.CASES.values()
GALLERY = "ranked_gallery_tracklets"


@pytest.mark.parametrize("variant", ["good", "rerank"])
def test_a_submission_scores_as_retrieval_does(world, variant):
    options, results = world
    path = submission.run(options, variant, 1)
    assert path == results.submission(variant, 1)
    splits = {protocol: worlds.protocol_tracklets(protocol) for protocol in submission.CASES}
    cases = submission.read(path, {submission.CASES[p]: splits[p] for p in splits})
    assert [case.name for case in cases] == [CASE, CASE_2, CASE_3]
    for case, (protocol, tracklets) in zip(cases, splits.items(), strict=True):
        retrieve.run(options, variant, 1, protocol)
        report = json.loads(results.retrieval(variant, 1, protocol).read_text())
        by_camera, by_number = submission.score_case(case, tracklets), submission.score_case(case)
        for rule, key in enumerate(("mAP", "mAP_trapezoid")):
            assert by_camera[rule].mAP == pytest.approx(report[key], abs=1e-12)
            plain = report["without_junk_rule"][key]  # here no two tracklets share a number
            assert by_number[rule].mAP == pytest.approx(plain, abs=1e-12)


def test_rows_are_as_the_challenge_has_them(world):
    rows = pd.read_csv(submission.run(world[0], "good", 1))
    assert list(rows) == ["row_id", "case", "query_tracklet", GALLERY]
    assert rows["row_id"].tolist() == list(range(1, len(rows) + 1))
    assert rows["case"].unique().tolist() == [CASE, CASE_2, CASE_3]
    assert rows.equals(rows.sort_values(["case", "query_tracklet"]))
    gallery = [t.name for t in worlds.protocol_tracklets("A2G") if t.subset == "gallery"]
    assert sorted(rows[GALLERY][0].split(" ")) == sorted(gallery)


def test_rows_are_ordered_by_identity_and_name_and_ties_by_gallery_order():
    numbers = ((102, 1), (101, 2), (101, 1))
    queries, gallery = (
        [worlds.tracklet(identity, 0, number, subset) for identity, number in numbers]
        for subset in ("query", "gallery")
    )
    distances = np.float32([[3, 1, 2], [0, 0, 0], [2, 2, 1]])
    names = [tracklet.name for tracklet in gallery]
    places = ([2, 0, 1], [0, 1, 2], [1, 2, 0])
    assert list(submission.ranked_names(distances, queries, gallery)) == [
        (query, [names[place] for place in row])
        for query, row in zip(sorted(names), places, strict=True)
    ]
    many = [worlds.tracklet(101, 0, number, "gallery") for number in range(99)]
    [(_, ranked)] = submission.ranked_names(np.arange(99)[None] % 2, queries[:1], many)
    assert ranked == [tracklet.name for tracklet in (*many[::2], *many[1::2])]
    for sides, side in (((queries, gallery[:1] * 3), "gallery"), ((queries[:1] * 3, gallery), "q")):
        with pytest.raises(UserError, match=f"3 {side}.* tracklets are called 0102_0001"):
            list(submission.ranked_names(distances, *sides))
    spaced = [replace(gallery[0], name="0102 0001")]
    with pytest.raises(UserError, match="gallery of the index: tracklet name '0102 0001' is"):
        list(submission.ranked_names(distances, queries, spaced))


def test_scores_of_a_small_file_by_hand(tmp_path, monkeypatch, capsys):
    """Of case 1, the second entry is junk by its number; no query of case 3 has a positive."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.csv"
    path.write_text(
        f"row_id,case,query_tracklet,{GALLERY}\n"
        f"1,{CASE},0001_7,0002_2 0001_7 0001_8\n2,{CASE},0001_2,0001_8 0001_7 0002_2\n"
        f"1,{CASE_2},0001_1,0001_2\n1,{CASE_3},0001_1,0002_2 0003_1\n"
    )
    submission.score(worlds.settings(), path)
    printed = capsys.readouterr().out
    rows = [[line[:27].strip(), *line[27:].split()[:5]] for line in printed.splitlines()[1:7]]
    assert rows == [
        ["", "queries", "scored", "mAP", "trapez.", "R1"],
        [CASE, "2", "2", "75.00", "62.50", "50.00"],
        [CASE_2, "1", "1", "100.00", "100.00", "100.00"],
        [CASE_3, "1", "0", "-", "-", "-"],
        ["macro mean of cases (Eq. 5)", "4", "3", "-", "-", "-"],
        ["micro mean of queries", "4", "3", "83.33", "75.00", "66.67"],
    ]
    assert f"{CASE_3}: no query has a positive by this rule, so no macro mean." in printed
    assert f"No index of {CASE}, {CASE_2}, {CASE_3} here" in printed
    assert "junk by camera" not in printed


def ranking(text):
    return lambda rows: rows.assign(**{GALLERY: [text, *rows[GALLERY][1:]]})


KNOWN = f"expected one of {CASE}; {CASE_2}; {CASE_3}"
NO_QUERY = "was there before, or is no query of the index"
BROKEN = {
    f"row 74: query 0101_0100 of {CASE} {NO_QUERY}": lambda rows: pd.concat([rows, rows[:1]]),
    f"row 2: query 0999_0001 of {CASE} {NO_QUERY}":
        lambda rows: rows.replace("0101_0100", "0999_0001"),
    f"26 of the 36 queries of {CASE} have no row, first 0102_0201": lambda rows: rows[:10],
    f"6 of the 36 queries of {CASE} have no row, first 0106_0100":
        lambda rows: rows[~rows["query_tracklet"].str.startswith("0106_")],
    f"18 of the 18 queries of {CASE_2} have no row": lambda rows: rows[rows["case"] != CASE_2],
    "has no rows": lambda rows: rows[:0],
    f"row 2: query 0101_0100 of {CASE} ranks 2 tracklets, expected each of the 18 of its case once":
        ranking("0101_0001 0102_0001"),
    "ranks 18 tracklets, expected each of the 18": ranking("0101_0000 " * 18),
    "; 0100_0001 is missing, or not of the case":
        lambda rows: rows.replace("0102_0001", "0100_0001", regex=True),
    "ranks 0 tracklets": ranking(""),
    "tracklet name 'person' is not PID_NUMBER": lambda rows: rows.replace("0101_0100", "person"),
    f"unknown case 'Case 9': {KNOWN}": lambda rows: rows.replace(CASE, "Case 9"),
    f"unknown case ' {CASE}'": lambda rows: rows.replace(CASE, f" {CASE}"),
    f"Column '{GALLERY}' in include_columns does not exist":
        lambda rows: rows.drop(columns=GALLERY),
    "s.csv: expected a csv of row_id, case, query_tracklet": lambda rows: pd.DataFrame(),
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_a_file_that_is_not_whole_is_one_clear_error(world, tmp_path, message):
    rows = pd.read_csv(submission.run(world[0], "good", 1))
    BROKEN[message](rows).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(UserError, match=re.escape(message)):
        submission.score(world[0], tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"1,{CASE},0001_1,0001_2 0001_2", "ranks 2 tracklets, expected each of the 1 of"),
        (f"1,{CASE},0001_1,0001_2\n2,{CASE},0001_4,0001_3", "row 3: .* 0001_2 is missing, or not"),
        (f"1,{CASE},0001_1,person", "tracklet name 'person' is not PID_NUMBER"),
        (f"1,{CASE},0001_1,", "row 2: .* ranks 0 tracklets"),
        (f"1,{CASE},0001_1", "Expected 4 columns, got 3"),
        (f"1,{CASE},0001_1,0001_2,0001_3", "Expected 4 columns, got 5"),
        (f"1,{CASE},0001_1,\udcff", "invalid UTF8 data"),
        (None, "expected a csv of .*not a regular file"),
    ],
)
def test_without_an_index_the_first_row_says_what_the_gallery_is(tmp_path, rows, message):
    path = tmp_path if rows is None else tmp_path / "s.csv"
    if rows is not None:
        text = f"row_id,case,query_tracklet,{GALLERY}\n{rows}\n"
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        submission.read(path, {})


def test_every_seed_has_its_own_file_of_the_protocols_that_are_cases(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dataset = {"name": "small", "root": "data", "protocols": ["A2G", "G2G", "ALL"]}
    options = worlds.settings(seeds=[1, 2], dataset=dataset)
    worlds.make(options)
    first, second = (pd.read_csv(submission.run(options, "good", seed)) for seed in (1, 2))
    assert not first[GALLERY].equals(second[GALLERY])
    assert {*first["case"]} == {CASE}
    assert capsys.readouterr().out == 2 * "left out: the challenge has no case for G2G, ALL\n"
    dataset["protocols"] = ["G2G", "ALL"]
    with pytest.raises(UserError, match=r"the challenge has no case for G2G, ALL .A2G is Case 1"):
        submission.run(worlds.settings(dataset=dataset), "good", 1)


def test_verbs(world, capsys, tmp_path):
    options, results = world
    (tmp_path / "c.yaml").write_text(options.model_dump_json())
    assert main(["submission", "--config", "c.yaml", "--variant", "good"]) == 0
    assert capsys.readouterr().out == f"wrote {results.submission('good', 1)}\n"
    assert main(["score", str(results.submission("good", 1)), "--config", "c.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "junk by tracklet number (public scorer)\n" in printed
    assert "junk by camera (this package, Eq. 5)\n" in printed
    assert main(["score", "nothing.csv", "--config", "c.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing.csv does not exist")

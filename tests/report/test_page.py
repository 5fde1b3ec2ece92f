"""The page as a whole: complete, self-contained, repeatable, and honest about what is missing."""

import math
import re
import shutil
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from reid.chain import name_of
from reid.cli import main
from reid.files import read_json, sha256_of_file
from reid.report import page as reporting
from reid.report.collect import AblationRow, Measurement
from reid.report.page import protocol_table, scene
from reid.report.table import MEANS, check_lines
from tests.report.home import PROTOCOLS, Page, csv_rows, parsed, replaced, without, work
from tests.retrieval.worlds import tracklet

COMMAND = ["report", "--config", "config.yaml"]
FIGURES = {
    *("ablation", "cmc", "map_by_altitude", "map_by_distance", "map_by_angle"),
    *("map_by_pixel_height", "training_stage1", "training_stage2", "attention_pooled"),
    "tuning_tuned_seed1",
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Where the figures of `page` are kept, which later reports do not change."""
    return tmp_path_factory.mktemp("kept") / "figures"


@pytest.fixture(scope="module")
def page(results, figures):
    """The report of everything that was run."""
    assert main(COMMAND) == 0
    shutil.copytree(results.figures(), figures)
    return Page(results.report())


def again(**changes):
    """The page with other options."""
    return Page(reporting.run(parsed(**changes)))


def gaps(page):
    """Text of the last section."""
    return page.text.rpartition("Not run, or left out")[2]


def ablation_cells(page):
    """(label of the row, place) -> text, as the page shows it."""
    places = {**{name: name for name in PROTOCOLS}, **{column: m for m, column in MEANS.items()}}
    return {
        (row, places[column]): text
        for (table, row, column), text in page.cells.items()
        if table == "Ablation table" and column in places and not row.startswith("Random")
    }


def test_the_numbers_are_those_of_the_table(results, page):
    cells = ablation_cells(page)
    assert len(cells) == 5 * 5
    for row in csv_rows(results.table("csv")):
        for place in (*PROTOCOLS, *MEANS):
            shown, text = cells[row["label"], place], "not run"
            if row["variant"] != "later":
                text = f"{float(row[f'{place}_mean_ap']):.2f}"
                if place in PROTOCOLS:
                    ends = (float(row[f"{place}_{end}"]) for end in ("low", "high"))
                    text += " {:.1f} to {:.1f}".format(*ends)
                    assert page.cells[place, row["label"], "mAP"] == text
            assert shown == text
    for protocol in PROTOCOLS:
        measured = read_json(results.retrieval("pooled", 1, protocol))
        shares = {f"Rank-{k}": measured["cmc"][str(k)] for k in (1, 5, 10)} | {
            "Trapezoid": measured["mAP_trapezoid"],
            "Chance": measured["chance_mAP"],
            "Cosine only": measured["mAP_without_rerank"],
        }
        for column, share in shares.items():
            assert page.cells[protocol, "+ Attention", column] == f"{100 * share:.2f}"


def scored(name, **scores):
    """A row with these scores on one protocol."""
    content = {"scores": {"queries": 1, **scores}}
    measurement = Measurement(name, name, "mean", 1, "A2G", content, Path("A2G.manifest.json"))
    variant = parsed().variants[name]
    return AblationRow(name, variant, {(1, "A2G"): measurement}, {}, (1,), ("A2G",))


def test_each_score_has_its_column_and_its_part_in_the_check():
    ranks = {"rank1": 0.02, "rank5": 0.03, "rank10": 0.04}
    scores = {"mean_ap": 0.01, **ranks, "without_rerank": 0.05, "trapezoid": 0.06, "chance": 0.07}
    line = protocol_table([scored("mean", **scores)], "A2G").iloc[0]
    assert line["mAP"] == "1.00"
    names = ["Rank-1", "Rank-5", "Rank-10", "Cosine only", "Trapezoid", "Chance"]
    assert line[names].tolist() == [f"{number}.00" for number in range(2, 8)]
    rows = [scored("plain", without_rerank=0.2), scored("mean", without_rerank=0.5, chance=0.3)]
    (check,) = check_lines(parsed(), rows)
    assert "yes (mean 1/1 and 1/1;" in check


def test_every_figure_is_there_as_svg_pdf_and_csv(page, figures):
    names = {path.name for path in figures.iterdir()}
    assert names == {f"{name}.{end}" for name in FIGURES for end in ("svg", "pdf", "csv")}
    assert sum(tag == "svg" for tag, _ in page.tags) == len(FIGURES)
    assert "Re-ranking, tuned: + Tuned" in page.text
    for path in figures.glob("*.svg"):
        width = re.search(r'width="([\d.]+)pt"', path.read_text())
        assert float(width[1]) / 72 == pytest.approx(3.3)  # inches: a column
    for path in figures.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_the_csv_of_a_figure_is_what_was_measured(results, page, figures):
    measured = read_json(results.retrieval("pooled", 1, "A2G"))
    wanted = {
        str(entry["group"]): (entry["mAP"], entry["queries"])
        for entry in measured["breakdown"]
        if entry["attribute"] == "altitude" and entry["side"] == "query"
    }
    rows = csv_rows(figures / "map_by_altitude.csv")
    drawn = {
        row["group"]: (float(row["mAP"]), int(row["queries"]))
        for row in rows
        if (row["variant"], row["protocol"]) == ("pooled", "A2G")
    }
    assert drawn == wanted
    assert {row["side"] for row in rows if row["protocol"] == "G2A"} == {"gallery"}
    shares = {
        row["rank"]: float(row["share"])
        for row in csv_rows(figures / "cmc.csv")
        if (row["variant"], row["protocol"]) == ("mean", "A2A")
    }
    cmc = read_json(results.retrieval("mean", 1, "A2A"))["cmc"]
    assert [shares[k] for k in ("1", "5")] == pytest.approx([cmc["1"], cmc["5"]])


def test_the_same_results_give_the_same_bytes(results, page, figures):
    """Figures of an earlier report are removed, files of the user are not."""
    old, foreign = (results.figures() / name for name in ("map_by_weather.svg", "mine.svg"))
    old.write_text("old")
    foreign.write_text("mine")
    assert main(COMMAND) == 0
    assert foreign.read_text() == "mine"
    foreign.unlink()
    assert results.report().read_text() == page.html
    after = {path.name: path.read_bytes() for path in results.figures().iterdir()}
    assert after == {path.name: path.read_bytes() for path in figures.iterdir()}


def test_it_needs_no_network_no_eyes_and_no_mouse(page):
    tags = page.tags
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    active = {tag for tag, given in tags if given.get("rel") != "icon"}
    assert not active & {"script", "link", "iframe", "object"}
    assert "Mean &lt;pooling&gt;" in page.html
    assert ("html", {"lang": "en"}) in tags
    assert sum(tag == "img" for tag, _ in tags) > 50
    assert all(given.get("alt") for tag, given in tags if tag == "img")
    assert all(given.get("aria-label") for tag, given in tags if tag == "svg")
    assert all(given.get("scope") in ("row", "col") for tag, given in tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a level is skipped"
    anchors = {given["id"] for _, given in tags if given.get("id")}
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= anchors


def test_provenance_names_what_made_the_numbers(results, page):
    weights = results.stage("pooled", 1, 2)
    manifest = read_json(weights.with_suffix(".manifest.json"))
    made = manifest["made"]
    cells = {c: t for (table, row, c), t in page.cells.items() if (table, row) == (MADE, "pooled")}
    assert cells["Finished"].startswith(made["finished"][:10])
    assert cells["Commit"].startswith(made["git"]["sha"][:10])
    assert (cells["Seed"], cells["Starts"], cells["Jobs"]) == ("1", "2", "none")
    assert cells["Threads"] == str(made["threads"])
    assert cells["Stamp"] == name_of(manifest["stamp"])
    assert work("pooled", 2).name == f"stage2-{cells['Stamp']}"
    assert sha256_of_file(weights) in page.text
    assert f"torch {made['packages']['torch']}" in page.text
    behind = page.text.partition("Manifests behind each row")[2].partition("configuration")[0]
    for path in results.root.glob("retrieval/*/seed1/*.manifest.json"):
        assert path.as_posix() in behind


MADE = "Trainings and what made them"
MISSING = {
    "frames": {
        "data": "Ranked lists of A2G: data/",
        "results/little/tune/tuned/seed1.json": "Tuning of + Tuned, seed 1: not run",
        "results/little/train/mean/seed1/stage2.manifest.json": "Training mean, seed 1: outdated: ",
        "results/little/train/pooled/seed1/stage2.safetensors": "",
        "WORK/stage2.jsonl": "",
        "WORK/attempts.jsonl": "",
    },
    "features": {
        "results/little/features/pooled/seed1/A2G.safetensors": "Temporal attention of pooled: ",
        "results/little/features/pooled/seed1/G2A.safetensors": "Ranked lists of G2A: ",
        "results/little/retrieval/pooled/seed1/A2A.json": "+ Attention, A2A: not run",
        "WORK/stage2.speed.jsonl": "",
        "tiny.safetensors": "",
    },
    "index": {
        "results/little/index/A2G.parquet": "Ranked lists of A2G: ",
        "results/little/retrieval/mean": "Mean <pooling>, A2G, G2A, A2A: not run",
        "results/little/retrieval/tuned": "+ Tuned, A2G, G2A, A2A: not run",
    },
}


@pytest.mark.parametrize("missing", MISSING)
def test_missing_artifacts_are_gaps_and_no_failure(page, missing):
    folder = work("pooled", 2).as_posix()
    with ExitStack() as stack:
        for path in MISSING[missing]:
            stack.enter_context(without(Path(path.replace("WORK", folder))))
        after = again()
    always = "+ Later, A2G, G2A, A2A: not run", "Training later, seed 1: not run"
    for reason in (*MISSING[missing].values(), *always):
        assert reason in gaps(after)
    if missing == "frames":  # as on a laptop, where the results were copied to
        assert "img" not in {tag for tag, _ in after.tags}
        row = {place: text for place, text in ablation_cells(page).items() if "+ Att" in place[0]}
        assert row.items() <= ablation_cells(after).items()
        assert after.cells[MADE, "pooled", "Commit"] == page.cells[MADE, "pooled", "Commit"]


def test_nothing_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = again()
    assert set(ablation_cells(page).values()) == {"not run"}
    assert page.text.count("Not run") >= 6
    assert "Random ranking" not in page.text
    assert not list(tmp_path.glob("results/little/figures/*"))


def test_stale_numbers_are_nowhere(results):
    with ExitStack() as stack:
        for protocol in ("A2A", "validation"):
            path = results.features("pooled", 1, protocol)
            other = results.features("pooled", 1, "G2A").read_bytes()
            stack.enter_context(replaced(path, other))
        page = again()
    assert "+ Attention, A2A: outdated: extract pooled seed1 A2A: " in gaps(page)
    assert ablation_cells(page)["+ Attention", "A2A"] == "not run"
    assert "Ranked lists of A2A" not in page.text
    for path in results.figures().glob("*.csv"):
        rows = csv_rows(path)
        assert not [r for r in rows if (r.get("variant"), r.get("protocol")) == ("pooled", "A2A")]
    assert "Tuning of + Tuned, seed 1: outdated: extract pooled seed1 validation: " in gaps(page)
    assert "+ Tuned, A2G, G2A: outdated: extract pooled seed1 validation: " in gaps(page)
    assert not (results.figures() / "tuning_tuned_seed1.svg").exists()


def test_every_option_acts(page):
    random_query, second, third = "<h4>Random: query", 'alt="Rank 2, ', 'alt="Rank 3, '
    assert page.html.count(random_query) == 3
    for text in (third, "12 tracklets", "Row shown in detail: + Attention", "Heads are blurred"):
        assert text in page.html
    other = again(queries=0, top=2, attention_tracklets=5, variant="mean").html
    for text in (second, "5 tracklets", "Row shown in detail: Mean &lt;pooling&gt;"):
        assert text in other
    assert random_query not in other
    assert third not in other

    kept = again(variant=None, seed=5, faces="keep").html
    assert "Row shown in detail: + Tuned" in kept
    drawn = r"<h4>(?:Random|Capture point \d+): query ([0-9_]+)"
    assert re.findall(drawn, kept) != re.findall(drawn, page.html)
    assert "Heads are blurred" not in kept
    picture = r"data:image/jpeg;base64,[^\"]+"
    blurred = set(re.findall(picture, page.html))
    assert blurred
    assert not blurred & set(re.findall(picture, kept))


def test_a_place_is_what_the_layout_tells():
    aerial, ground = tracklet(1, 2, 3, "query"), tracklet(1, 0, 0, "query")
    unknown = dict.fromkeys(("altitude", "distance", "angle"), math.nan)
    bare = {**unknown, "session": None, "view": None, "camera": 0}
    for shown, text in (
        (aerial, "23.1 m up, 40 m away, 30 degrees, session 2"),
        (ground, "ground"),
        (replace(aerial, **unknown), "aerial, session 2"),
        (replace(aerial, distance=math.nan, angle=math.nan), "23.1 m up, session 2"),
        (replace(aerial, **bare), "camera 0"),
        (replace(ground, camera=4), "ground, camera 4"),
    ):
        assert scene(shown) == text

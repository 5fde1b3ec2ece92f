"""The page as a whole: complete, self-contained, repeatable, and honest about what is missing."""

import math
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from reid.cli import main
from reid.files import read_json
from reid.report import page as reporting
from reid.report.page import scene
from reid.report.table import MEANS
from tests.report.home import NOT_RUN, PROTOCOLS, Page, csv_rows, parsed, replaced, without
from tests.retrieval.worlds import tracklet

COMMAND = ["report", "--config", "config.yaml"]
EXPECTED = {
    *("ablation", "cmc", "map_by_altitude", "map_by_distance", "map_by_angle"),
    *("map_by_pixel_height", "training_stage1", "training_stage2", "attention_pooled"),
    "tuning_tuned_seed1",
}


@dataclass(frozen=True)
class Written:
    """A report as it was written, which later ones do not change."""

    page: Page
    text: str
    figures: Path


@pytest.fixture(scope="module")
def whole(results, tmp_path_factory):
    """The report of everything that was run."""
    assert main(COMMAND) == 0
    figures = tmp_path_factory.mktemp("kept") / "figures"
    shutil.copytree(results.figures(), figures)
    return Written(Page(results.report()), results.report().read_text(), figures)


@pytest.fixture(scope="module")
def page(whole):
    return whole.page


def again(results, **changes):
    """The page with other options."""
    reporting.run(parsed(**changes))
    return Page(results.report())


def gaps(page):
    """Text of the last section."""
    return page.text.rpartition("Not run, or left out")[2]


def ablation_cells(page):
    """(variant, place) -> text, as the page shows it."""
    labels = {variant.label: name for name, variant in parsed().variants.items()}
    columns = {**{p: p for p in PROTOCOLS}, **MEANS}
    return {
        (labels[row], place): page.cells["Ablation table", row, column]
        for table, row, column in page.cells
        for place in columns
        if table == "Ablation table" and columns[place] == column and row in labels
    }


def test_the_numbers_are_those_of_the_table(results, page):
    cells = ablation_cells(page)
    assert len(cells) == 4 * 5
    for row in csv_rows(results.table("csv")):
        for place in (*PROTOCOLS, *MEANS):
            value = row[f"{place}_mean_ap"]
            assert cells[row["variant"], place] == (f"{float(value):.2f}" if value else "not run")
    assert sum(text == "not run" for text in cells.values()) == 5
    (row,) = (row for row in csv_rows(results.table("csv")) if row["variant"] == "pooled")
    assert f"{float(row['A2G_low']):.1f} to {float(row['A2G_high']):.1f}" in page.text
    for protocol in PROTOCOLS:
        measured = read_json(results.retrieval("pooled", 1, protocol))
        ranks = {f"Rank-{k}": measured["cmc"][str(k)] for k in (1, 5, 10)}
        means = {"mAP": measured["mAP"], "Cosine only": measured["mAP_without_rerank"]}
        others = {"Trapezoid": measured["mAP_trapezoid"], "Chance": measured["chance_mAP"]}
        for column, share in {**ranks, **means, **others}.items():
            assert page.cells[protocol, "+ Attention", column] == f"{100 * share:.2f}"


def test_it_holds_everything_it_shows_and_escapes_it(whole, page):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & (
        {tag for tag, given in page.tags if given.get("rel") != "icon"}
    )
    assert sum(tag == "img" for tag, _ in page.tags) > 50
    assert "Mean &lt;pooling&gt;" in whole.text
    assert "Mean <pooling>" in page.text


def test_every_figure_is_there_as_svg_pdf_and_csv(whole, page):
    files = {path.name for path in whole.figures.iterdir()}
    assert files == {f"{name}.{end}" for name in EXPECTED for end in ("svg", "pdf", "csv")}
    drawn = [given for tag, given in page.tags if tag == "svg"]
    assert len(drawn) == len(EXPECTED)
    for path in whole.figures.glob("*.svg"):
        width = re.search(r'width="([\d.]+)pt"', path.read_text())
        assert float(width[1]) / 72 == pytest.approx(3.3)  # inches: a column
    for path in whole.figures.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_the_csv_of_a_figure_is_what_was_measured(results, whole):
    measured = read_json(results.retrieval("pooled", 1, "A2G"))
    wanted = {
        str(entry["group"]): (entry["mAP"], entry["queries"])
        for entry in measured["breakdown"]
        if entry["attribute"] == "altitude" and entry["side"] == "query"
    }
    rows = csv_rows(whole.figures / "map_by_altitude.csv")
    drawn = {
        row["group"]: (float(row["mAP"]), int(row["queries"]))
        for row in rows
        if (row["variant"], row["protocol"]) == ("pooled", "A2G")
    }
    assert drawn == wanted
    assert {row["side"] for row in rows if row["protocol"] == "G2A"} == {"gallery"}
    cmc = csv_rows(whole.figures / "cmc.csv")
    (fifth,) = (
        row for row in cmc if (row["variant"], row["protocol"], row["rank"]) == ("mean", "A2A", "5")
    )
    rank5 = read_json(results.retrieval("mean", 1, "A2A"))["cmc"]["5"]
    assert float(fifth["share"]) == pytest.approx(rank5)


def test_the_same_results_give_the_same_bytes(results, whole):
    """Figures of an earlier report are removed, files of the user are not."""
    old, foreign = (results.figures() / name for name in ("map_by_weather.svg", "mine.svg"))
    old.write_text("old")
    foreign.write_text("mine")
    assert main(COMMAND) == 0
    assert foreign.read_text() == "mine"
    foreign.unlink()
    assert results.report().read_text() == whole.text
    after = {path.name: path.read_bytes() for path in results.figures().iterdir()}
    assert after == {path.name: path.read_bytes() for path in whole.figures.iterdir()}


def test_readers_without_eyes_or_a_mouse(page):
    tags = page.tags
    assert ("html", {"lang": "en"}) in tags
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
    manifest = read_json(results.manifest("pooled", 1))
    for digest in (manifest["fingerprint"], manifest["outputs"]["stage2"]["sha256"]):
        assert digest in page.text
    assert f"torch {manifest['packages']['torch']}" in page.text
    for name, time in zip(
        ("Finished", "Commit"), (manifest["finished"], manifest["git"]["sha"]), strict=True
    ):
        assert time[:10] in page.cells["Trainings and what made them", "pooled", name]


MISSING = [
    {
        "data": "Ranked lists of A2G: data/",
        "results/little/tune/tuned/seed1.json": "Tuning of + Tuned: ",
        "results/little/train/mean/seed1/manifest.json": "Training mean, seed 1: not run",
        "results/little/train/pooled/seed1/stage2.jsonl": "",
        "results/little/train/pooled/seed1/attempts.jsonl": "",
    },
    {
        "results/little/features/pooled/seed1/A2G.safetensors": "Temporal attention of pooled: ",
        "results/little/features/pooled/seed1/G2A.safetensors": "Ranked lists of G2A: ",
        "results/little/retrieval/pooled/seed1/A2A.json": "+ Attention, A2A: not run",
        "results/little/train/mean/seed1/stage1.jsonl": "",
        "results/little/train/mean/seed1/stage2.speed.jsonl": "",
        "tiny.safetensors": "",
    },
    {
        "results/little/index": "Ranked lists of A2G: ",
        "results/little/retrieval/mean": "Mean <pooling>, A2G, G2A, A2A: not run",
        "results/little/retrieval/tuned": "+ Tuned, A2G, G2A, A2A: not run",
    },
]


@pytest.mark.parametrize("missing", MISSING, ids=["frames", "features", "index"])
def test_missing_artifacts_are_gaps_and_no_failure(results, whole, missing):
    with ExitStack() as stack:
        for path in missing:
            stack.enter_context(without(Path(path)))
        page = again(results)
    for reason in missing.values():
        assert reason in gaps(page)
    assert "+ Later, A2G, G2A, A2A: not run" in gaps(page)
    assert f"Training {NOT_RUN}, seed 1: not run" in gaps(page)
    if "data" in missing:  # as on a laptop, where the results were copied to
        assert "img" not in {tag for tag, _ in page.tags}
        assert ablation_cells(page) == ablation_cells(whole.page)


def test_nothing_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = reporting.run(parsed())
    page = Page(path)
    assert set(ablation_cells(page).values()) == {"not run"}
    assert page.text.count("Not run") >= 6
    assert "chance on all" not in page.text
    assert "Random ranking" not in page.text
    assert not list((path.parent / "figures").glob("*"))


def test_stale_numbers_are_nowhere(results):
    with ExitStack() as stack:
        for protocol in ("A2A", "validation"):
            path = results.features("pooled", 1, protocol)
            other = results.features("pooled", 1, "G2A").read_bytes()
            stack.enter_context(replaced(path, other))
        page = again(results)
    assert "+ Attention, A2A: stale: the features changed afterwards" in gaps(page)
    assert ablation_cells(page)["pooled", "A2A"] == "not run"
    assert "Ranked lists of A2A" not in page.text
    for path in results.figures().glob("*.csv"):
        rows = csv_rows(path)
        assert not [r for r in rows if (r.get("variant"), r.get("protocol")) == ("pooled", "A2A")]
    assert "seed1.json was made of other features" in gaps(page)
    assert "+ Tuned, A2G, G2A, A2A: stale: the tuning was made of other features" in gaps(page)
    assert not (results.figures() / "tuning_tuned_seed1.svg").exists()


def test_every_option_acts(results, whole):
    def count(text, pattern):
        return len(re.findall(pattern, text))

    def written(**changes):
        again(results, **changes)
        return results.report().read_text()

    random_query, second, third = "<h4>Random: query", 'alt="Rank 2, ', 'alt="Rank 3, '
    assert count(whole.text, random_query) == 3
    assert count(whole.text, third) > 0
    assert "12 tracklets" in whole.text
    assert "Row shown in detail: + Attention" in whole.page.text

    other = written(queries=0, top=2, attention_tracklets=5, variant="mean")
    assert count(other, random_query) == 0
    assert count(other, second) > 0
    assert count(other, third) == 0
    assert "5 tracklets" in other
    assert "Row shown in detail: Mean &lt;pooling&gt;" in other

    kept = written(variant=None, seed=5, faces="keep")
    assert "Row shown in detail: + Tuned" in kept
    drawn = r"<h4>(?:Random|Capture point \d+): query ([0-9_]+)"
    assert re.findall(drawn, kept) != re.findall(drawn, whole.text)
    assert "Heads are blurred" in whole.text
    assert "Heads are blurred" not in kept
    pictures = [
        set(re.findall(r"data:image/jpeg;base64,[^\"]+", text)) for text in (kept, whole.text)
    ]
    assert pictures[0]
    assert not pictures[0] & pictures[1]


def test_a_place_is_what_the_layout_tells():
    aerial, ground = tracklet(1, 2, 3, "query"), tracklet(1, 0, 0, "query")
    assert scene(aerial) == "23.1 m up, 40 m away, 30 degrees, session 2"
    assert scene(ground) == "ground"
    unknown = dict.fromkeys(("altitude", "distance", "angle"), math.nan)
    assert scene(replace(aerial, **unknown)) == "aerial, session 2"
    assert scene(replace(aerial, distance=math.nan, angle=math.nan)) == "23.1 m up, session 2"
    bare = {**unknown, "session": None, "view": None}
    assert scene(replace(aerial, **bare, camera=0)) == "camera 0"
    assert scene(replace(ground, camera=4)) == "ground, camera 4"

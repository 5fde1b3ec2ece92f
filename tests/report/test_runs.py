"""Journals, attempts, benchmarks and cost of trainings."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from reid.config import Adapters, Clip, Model, Pooling, Prompts
from reid.model.vit import VIT_B16
from reid.report import runs
from reid.report.cells import collect
from reid.report.cost import costs, macs_per_frame, stage_hours
from reid.report.drawing import SERIES
from reid.report.runs import Run, seconds_of
from reid.report.training_plots import stage2_plots
from tests.report.home import csv_rows, parsed, replaced

TEMPLATES = Path(runs.__file__).with_name("templates")


def one(name, **options):
    return next(run for run in runs.runs(parsed(**options)) if run.training == name)


def test_a_curve_is_the_mean_of_each_epoch(results):
    run = one("mean")
    journal = results.run("mean", 1) / "stage2.jsonl"
    steps = [json.loads(line) for line in journal.read_text().splitlines()]
    second = [step["loss"] for step in steps if step["epoch"] == 2 and "loss" in step]
    assert run.curves[2].epochs == [1, 2]
    assert run.curves[2].loss[1] == pytest.approx(sum(second) / len(second))
    assert run.curves[2].complete
    assert run.frames_per_second > 0
    assert run.starts == 2
    assert run.trained_seconds >= 0


def test_half_a_journal_is_unfinished(results, tmp_path):
    path = results.run("mean", 1) / "stage2.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    first = b"".join(line for line in whole if json.loads(line)["epoch"] == 1)
    with replaced(path, first + b'{"epoch": 2, "st'):
        run = one("mean")
    assert run.curves[2].epochs == [1]
    (plot,) = stage2_plots([run], tmp_path)
    assert "Unfinished, epochs: mean 1 of 2." in plot.caption
    (row,) = csv_rows(tmp_path / "training_stage2.csv")
    assert float(row["loss"]) == run.curves[2].loss[0]


@pytest.mark.parametrize("content", [b"{", b'{"options": {}}', b"[]"])
def test_a_damaged_manifest_is_a_gap(results, content):
    with replaced(results.manifest("mean", 1), content):
        run = one("mean")
        row = next(row for row in collect(parsed()) if row.name == "mean")
    assert run.gap
    assert not run.curves
    assert row.macro() is None
    assert len(row.gaps()) == 1


def test_a_training_with_other_options_is_stale(results):
    path = results.manifest("mean", 1)
    manifest = json.loads(path.read_text())
    manifest["options"]["stage2"]["stage2"]["lr"] = 7
    with replaced(path, json.dumps(manifest).encode()):
        assert one("mean").gap == "stale: the training has other options now"


def test_attempts_and_jobs_are_counted():
    times = [("start", "07:00:00"), ("stopped", "08:00:00"), ("start", "09:00:00"),
             ("failed", "09:30:00"), ("start", "10:00:00")]  # fmt: skip
    attempts = tuple(
        {"time": f"2026-01-01T{time}+00:00", "event": event, "job": "7" if time < "09" else "8"}
        for event, time in times
    )
    run = Run("x", 1, None, {}, attempts, {}, None, None)
    assert run.starts == 3
    assert run.trained_seconds == 1.5 * 3600
    assert run.jobs == ["7", "8"]


def test_hours_come_from_the_benchmarks(results):
    place = results.benchmark("train", "mean", "seed1", "stage2")
    place.parent.mkdir(parents=True)
    place.write_text("s\th:m:s\n5400.5\t1:30:00\n")
    extraction = results.benchmark("features", "mean", "seed1", "A2A")
    extraction.parent.mkdir(parents=True)
    extraction.write_text("h:m:s\ts\n0:00:02\t2.0\n")
    assert seconds_of(place) == 5400.5
    hours = {each.step: each for each in stage_hours(parsed())}
    assert (hours["stage 2"].timed, hours["stage 2"].jobs) == (1, 3)
    assert hours["stage 2"].hours == pytest.approx(1.5, abs=1e-3)
    assert hours["extract"].jobs == 10
    assert hours["tune"].timed == 0
    cost = next(each for each in costs(parsed(), [one(n) for n in ("mean", "pooled", "later")]))
    # 3 people, 2 tracklets each on either side, of 3 frames, not mirrored, in two seconds.
    assert cost.extract_speed == 3 * 4 * 3 / 2
    assert cost.trained_stage2 < cost.parameters
    assert cost.macs_per_frame > 0


def test_multiplications_of_the_true_geometry():
    """MODEL section 5: 12.11 GMAC with prompts and adapters, as there counted by hand."""
    model = Model(prompts=Prompts(length=4), adapters=Adapters(), pooling=Pooling(kind="attention"))
    assert macs_per_frame(model, Clip(), VIT_B16) / 1e9 == pytest.approx(12.11, rel=0.02)
    bare = Model(prompts=Prompts(length=0), adapters=Adapters(spatial=False, temporal=False))
    plain = macs_per_frame(bare, Clip(), VIT_B16) / 1e9
    # 11.34 less what the last block saves by computing the class token only.
    assert 10.4 < plain < 11.34


def palette(text):
    return dict(re.findall(r"--([a-z]+(?:-\d)?): (#[0-9a-f]{6})", text))


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colors_can_be_read(theme):
    """WCAG AA: 4.5 for text, 3 for lines, on the page and on its cards."""
    style = (TEMPLATES / "style.css").read_text()
    light, _, rest = style.partition("@media (prefers-color-scheme: dark)")
    colors = palette(light if theme == "light" else rest.partition("@media print")[0])
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "accent"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    for text in ("hit", "miss"):
        assert contrast(colors[text], colors["paper"]) >= 4.5, text
    for place, _ in enumerate(SERIES):
        assert contrast(colors[f"series-{place}"], colors["paper"]) >= 3


def test_lines_differ_without_color():
    for series in SERIES:
        assert contrast(series.color, "#ffffff") >= 3
    for one, other in combinations(SERIES, 2):
        assert one.marker != other.marker
        assert one.dashes != other.dashes

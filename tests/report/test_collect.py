"""Measurements and trainings: what was measured, and why something was not."""

import json
import statistics
from datetime import datetime

import pytest
from safetensors.numpy import load_file

from reid.config import Adapters, Clip, Model, Pooling, Prompts
from reid.model.vit import VIT_B16
from reid.report.collect import (
    AblationRow,
    ablation_rows,
    attempted_seconds,
    detailed,
    one_a_training,
    training_records,
)
from reid.report.cost import DASH, costs, macs_per_frame, step_times
from tests.report.home import parsed, replaced, work


def record(name):
    return next(record for record in training_records(parsed()) if record.training == name)


def test_a_curve_is_the_mean_of_each_epoch(results):
    mean = record("mean")
    lines = (work("mean", 2) / "stage2.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    second = [step["loss"] for step in steps if step["epoch"] == 2 and "loss" in step]
    assert mean.curves[2]["epoch"].tolist() == [1, 2]
    assert mean.curves[2]["loss"][1] == pytest.approx(sum(second) / len(second))
    assert set(mean.curves[1].columns) == {"training", "seed", "epoch", "loss"}
    assert mean.frames_per_second > 0
    assert mean.starts == 2
    assert 1 in record("pooled").curves  # it holds people out, so it shares no stage 1


@pytest.mark.parametrize("content", [b"{", b'{"options": {}}', b"[]", b"null"])
def test_a_damaged_manifest_is_a_gap(results, content):
    """Of the training, and of all that was measured with its weights."""
    with replaced(results.stage("mean", 1, 2).with_suffix(".manifest.json"), content):
        mean = record("mean")
        row = next(row for row in ablation_rows(parsed()) if row.name == "mean")
    assert "nothing tells what made it" in mean.gap
    assert not mean.curves
    assert not row.measurements
    assert [*row.reasons()] == [mean.gap.replace("outdated: ", "outdated: stage2 mean seed1: ")]


def test_time_of_attempts_counts_from_a_start_to_the_next_end():
    times = [("start", "07:00:00"), ("stopped", "08:00:00"), ("start", "09:00:00"),
             ("failed", "09:30:00"), ("start", "10:00:00")]  # fmt: skip
    attempts = [
        {"time": datetime.fromisoformat(f"2026-01-01T{time}+00:00"), "event": event}
        for event, time in times
    ]
    assert attempted_seconds(attempts) == 1.5 * 3600


def test_the_row_in_detail_and_one_row_a_training(results):
    rows = ablation_rows(parsed())
    assert detailed(rows, None).name == "tuned"
    assert detailed(rows, "mean").name == "mean"
    assert detailed(rows, "later") is None
    assert [row.name for row in one_a_training(rows, most=4)] == ["mean", "tuned"]
    assert [row.name for row in one_a_training(rows, most=1)] == ["mean"]


def test_the_first_seed_stands_for_the_row():
    measured = {(seed, p): f"{seed} {p}" for seed, p in [(2, "A2G"), (3, "A2G"), (3, "A2A")]}
    variant = parsed().variants["mean"]
    row = AblationRow("mean", variant, measured, {}, (1, 2, 3), ("A2G", "A2A"))
    assert row.first() == {"A2G": "2 A2G", "A2A": "3 A2A"}


def test_time_and_speed_come_from_the_benchmarks(results):
    def cost(options):
        return costs(options, training_records(options)).set_index("Training").loc["mean"]

    for place, seconds in {
        ("train", "mean", "seed1", "stage2"): 5400.5,
        ("train", "removed", "seed1", "stage2"): 1,
        ("features", "mean", "seed1", "A2A"): 2,
    }.items():
        path = results.benchmark(*place)
        path.parent.mkdir(parents=True)
        path.write_text(f"h:m:s\ts\n0:00:00\t{seconds}\n")
    steps = step_times(parsed()).set_index("Step")
    assert steps.loc["stage 2"].tolist() == ["1", "1:30:00"]
    assert steps.loc["tune"].tolist() == ["0", DASH]
    plain = cost(parsed())
    # 3 people, 2 tracklets each on either side, of 3 frames, not mirrored, in two seconds.
    assert plain["Frames/s, extraction"] == str(3 * 4 * 3 // 2)
    variants = parsed().variants
    flipped = variants["mean"].model_copy(update={"flip_tta": True})
    both = cost(parsed().model_copy(update={"variants": {**variants, "mean": flipped}}))
    assert both["Frames/s, extraction"] == str(2 * 3 * 4 * 3 // 2)  # both views of each frame
    rates = [
        json.loads(line)["frames_per_second"]
        for line in (work("mean", 2) / "stage2.speed.jsonl").read_text().splitlines()
    ]
    assert plain["Frames/s, training"] == f"{statistics.median(rates):,.0f}"
    assert plain["GPU memory, peak"] == DASH


def test_parameters_are_counted(results):
    row = costs(parsed(), training_records(parsed())).set_index("Training").loc["pooled"]
    contexts = load_file(results.stage("pooled", 1, 1))
    count = sum(contexts[name].size for name in ("identity", "prefix", "suffix"))
    assert row["Trained in stage 1"] == f"{count / 1000:.2f} k"
    trained, whole = (row[name] for name in ("Trained in stage 2", "Visual parameters"))
    stored = sum(tensor.size for tensor in load_file(results.stage("pooled", 1, 2)).values())
    assert 0.99 * stored < 1000 * float(trained.removesuffix(" k")) <= stored  # with buffers
    assert float(whole.removesuffix(" k")) > 5 * stored / 1000
    assert float(row["GMAC a frame"]) > 0


def test_multiplications_of_the_true_geometry():
    """MODEL section 5: 12.11 GMAC with prompts and adapters, as there counted by hand."""
    model = Model(prompts=Prompts(length=4), adapters=Adapters(), pooling=Pooling(kind="attention"))
    assert macs_per_frame(model, Clip(), VIT_B16) / 1e9 == pytest.approx(12.11, rel=0.02)
    bare = Model(prompts=Prompts(length=0), adapters=Adapters(spatial=False, temporal=False))
    # 11.34 less what the last block saves by computing the class token only.
    assert 10.4 < macs_per_frame(bare, Clip(), VIT_B16) / 1e9 < 11.34

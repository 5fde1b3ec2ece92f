"""What the report says of temporal attention."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from reid.data.dataset import TrackletDataset
from reid.data.stored import read_split
from reid.errors import UserError
from reid.report.attention import attention, choose, correlation, sharpness, weight_by_rank
from reid.report.collect import ablation_rows
from reid.report.figures import Look
from tests.report.home import csv_rows, parsed, replaced
from tests.retrieval.worlds import tracklet


def frame_table(*tracklets):
    """A table of frames of (identity, weights, heights)."""
    parts = [
        pd.DataFrame({"tracklet": place, "identity": identity, "features": weights,
                      "projected": weights[::-1], "height": heights})
        for place, (identity, weights, heights) in enumerate(tracklets)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_weights_by_rank_of_the_frame():
    same = (103, [0.7, 0.1, 0.1, 0.1], [50, 50, 50, 50])  # nothing to tell apart
    rising = (101, [0.1, 0.2, 0.3, 0.4], [10, 20, 30, 400])
    falling = (102, [0.4, 0.3, 0.2, 0.1], [90, 80, 70, 60])
    frames = frame_table(rising, falling, same)
    parts = weight_by_rank(frames, "height", 4)
    assert parts["part"].tolist() == [1, 2, 3, 4]
    assert parts["weight_times_T"].tolist() == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert parts["frames"].tolist() == [2, 2, 2, 2]
    assert (parts["low"] <= parts["weight_times_T"]).all()
    assert (parts["weight_times_T"] <= parts["high"]).all()
    halves = weight_by_rank(frames, "height", 2)
    assert halves["weight_times_T"].tolist() == pytest.approx([0.6, 1.4])
    assert correlation(frames, "features", "height") == "height 1.00 (1.00 to 1.00), 2 tracklets"
    assert correlation(frames, "projected", "height").startswith("height -1.00 (-1.00 to -1.00)")
    mixed = frame_table(rising, (101, rising[1], [1, 3, 2, 4]))
    assert correlation(mixed, "features", "height") == "height 0.90, 2 tracklets"  # one identity
    level = frame_table(same, (104, [0.25] * 4, [1, 2, 3, 4]))
    assert correlation(level, "features", "height") == "height: the same in all frames"
    assert weight_by_rank(frame_table(same), "height", 4).empty


def test_the_most_uneven_tracklet_and_one_of_each_angle():
    tracklets = [tracklet(101, 1, number, "query") for number in range(18)]
    weights = [[0.25] * 4] * 6 + [[0.1, 0.1, 0.7, 0.1]] + [[0.25] * 4] * 11
    frames = frame_table(*((101, values, [1] * 4) for values in weights))
    first, *others = choose(frames, tracklets, 0)
    assert first == ("Most uneven", 6)
    assert [reason for reason, _ in others] == [f"Random, {a} degrees" for a in (30, 60, 90)]
    assert [tracklets[place].angle for _, place in others] == [30, 60, 90]
    ground = [tracklet(101, 0, number, "query") for number in range(18)]
    assert [reason for reason, _ in choose(frames, ground, 0)] == ["Most uneven", *["Random"] * 3]


def test_sharpness_is_the_variance_of_the_laplacian():
    frames = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    gray = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * frames[1]).sum(0).tolist()
    laplacian = [
        gray[y - 1][x] + gray[y + 1][x] + gray[y][x - 1] + gray[y][x + 1] - 4 * gray[y][x]
        for y in range(1, 63)
        for x in range(1, 31)
    ]
    assert float(sharpness(frames)[1]) == pytest.approx(np.var(laplacian), rel=1e-3)


def test_the_page_shows_what_was_extracted_from_these_frames(results, tmp_path):
    row = next(row for row in ablation_rows(parsed()) if row.name == "pooled")
    _, sheets = attention(
        parsed(attention_tracklets=50), row.first()["A2G"], Look(tmp_path, ["pooled"])
    )
    tracklets = read_split(results.index("A2G"))
    clip = parsed().trainings["pooled"].clip
    clips = TrackletDataset(tracklets, parsed().dataset.root, clip=clip, train=False)
    weights = load_file(results.features("pooled", 1, "A2G"))["frame_weights"]
    assert len(sheets) > 2
    for sheet in sheets:
        place = [tracklet.path for tracklet in tracklets].index(sheet.tracklet.path)
        order = np.argsort(-weights[place, 0])
        assert sheet.frames["features"].tolist() == weights[place, 0][order].tolist()
        assert sheet.frames["projected"].tolist() == weights[place, 1][order].tolist()
        assert sheet.frames["height"].tolist() == clips[place].heights[0].numpy()[order].tolist()
        sharp = sharpness(clips[place].frames[0]).numpy()[order]
        assert sheet.frames["sharpness"].tolist() == pytest.approx(sharp.tolist())
    assert sheets[0].frames["features"].max() == weights[:, 0].max()
    lines = csv_rows(tmp_path / "attention_pooled.csv")
    assert [(r["quality"], r["part"]) for r in lines] == [
        (quality, part) for quality in ("height", "sharpness") for part in "123"
    ]


def test_features_without_weights_say_what_to_do(results, tmp_path):
    measurement = next(r for r in ablation_rows(parsed()) if r.name == "pooled").first()["A2G"]
    path = results.features("pooled", 1, "A2G")
    tensors = load_file(path)
    del tensors["frame_weights"]
    with replaced(path, path.read_bytes()):
        save_file(tensors, path)
        with pytest.raises(UserError, match="no frame weights: run `reid extract` again"):
            attention(parsed(), measurement, Look(tmp_path, ["pooled"]))

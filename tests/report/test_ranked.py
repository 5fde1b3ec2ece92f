"""Ranked lists: the queries that are chosen, that their rankings are those measured, pictures."""

import base64
import math
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.io import decode_jpeg

from reid.config import Clip, Report, ReRanking
from reid.data import index as indexing
from reid.data.dataset import TrackletDataset
from reid.data.stored import read_split
from reid.errors import UserError
from reid.features.features import read_features
from reid.report.collect import ablation_rows
from reid.report.ranked import (
    CELL,
    EXTREMES,
    HEAD,
    POINTS,
    RANDOM,
    choose,
    hide_heads,
    ranked_lists,
    strip,
)
from reid.retrieval.retrieve import distances_of, split_protocol
from tests.report.home import parsed
from tests.retrieval.worlds import tracklet
from tests.trees import make_tree


def measurement(name, protocol):
    row = next(row for row in ablation_rows(parsed()) if row.name == name)
    return row.first()[protocol]


def chosen(precision, camera=1, heights=None, **options):
    queries = [tracklet(101, camera, number, "query") for number in range(len(precision))]
    asked = SimpleNamespace(protocol="A2G", content={"per_query": {"ap": precision}})
    return choose(asked, queries, heights, Report(**options))


def test_queries_that_are_shown():
    """Best with fewest pixels, worst with most; others at random; one of each capture point."""
    precision, heights = [0.5, 1.0, 1.0, None, 0.1, 0.1], np.array([30, 80, 20, 5, 40, 90.0])
    assert chosen(precision, heights=heights)[EXTREMES] == [("Best", 2), ("Worst", 5)]

    precision = [0.9] + [0.5] * 40 + [0.1] + [None] * 40
    drawn = [chosen(precision, queries=4, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0][RANDOM] == drawn[1][RANDOM] != drawn[2][RANDOM]
    for groups in drawn:
        positions = {q for _, q in groups[RANDOM]}
        assert len(positions) == 4
        assert positions <= set(range(1, 41))
        assert [reason for reason, _ in groups[POINTS]] == [
            f"Capture point {n + 1}" for n in range(18)
        ]
        assert [q % 18 for _, q in groups[POINTS]] == list(range(18))
        assert all(precision[q] for _, q in groups[POINTS])
    assert chosen([0.5, 0.4, None])[RANDOM] == []
    assert chosen([0.5] * 9, camera=0)[POINTS] == []  # on the ground


@pytest.mark.parametrize("protocol", ["A2G", "A2A"])
def test_the_lists_are_the_rankings_that_were_measured(results, protocol):
    measured = measurement("pooled", protocol)
    rerank = ReRanking(**measured.content["rerank"])
    lists = ranked_lists(parsed(top=4), measured)
    tracklets = read_split(results.index(protocol))
    queries, gallery = split_protocol(tracklets)
    source = results.features("pooled", 1, protocol)
    features = read_features(source, rows=len(tracklets), flip_tta=False)
    clip = parsed().trainings["pooled"].clip
    clips = TrackletDataset(tracklets, parsed().dataset.root, clip=clip, train=False)
    split, place = len(queries), {query.path: q for q, query in enumerate(queries)}
    precision = measured.content["per_query"]["ap"]
    assert [len(lists[group]) for group in (EXTREMES, RANDOM)] == [2, 1]
    for shown in chain.from_iterable(lists.values()):
        q = place[shown.query.path]
        assert shown.picture == strip(clips, q, 8, "blur")
        assert shown.height == pytest.approx(float(clips[q].heights.median()))
        for ranking, used in zip(shown.rankings, (None, rerank), strict=True):
            distances = distances_of(features[:split], features[split:], used)[q]
            order = np.argsort(distances, kind="stable")[:4].tolist()
            assert [entry.tracklet.path for entry in ranking.entries] == [
                gallery[g].path for g in order
            ]
            pictures = [entry.picture for entry in ranking.entries]
            assert pictures == [strip(clips, split + g, 2, "blur") for g in order]
            shown_distances = [float(entry.distance) for entry in ranking.entries]
            # Products of other sizes are rounded otherwise.
            assert shown_distances == pytest.approx(distances[order].tolist(), abs=1e-5)
            hits = [entry.hit for entry in ranking.entries]
            assert hits == [gallery[g].identity == shown.query.identity for g in order]
            first = ranking.first_hit
            assert ranking.positives == sum(g.identity == shown.query.identity for g in gallery)
            assert hits.index(True) + 1 == first if any(hits) else first > 4
        assert shown.rankings[1].ap == pytest.approx(precision[q])
    best, worst = (place[shown.query.path] for shown in lists[EXTREMES])
    assert precision[best] == max(precision)
    assert precision[worst] == min(precision)


def test_junk_is_left_out(results, monkeypatch):
    measured = measurement("mean", "A2A")
    _, gallery = split_protocol(read_split(results.index("A2A")))

    def same_camera(tracklets):
        queries, (first, *rest) = split_protocol(tracklets)
        return queries, [replace(first, camera=queries[0].camera), *rest]

    monkeypatch.setattr("reid.report.ranked.split_protocol", same_camera)
    lists = ranked_lists(parsed(top=50, queries=50), measured)
    for shown in (*lists[EXTREMES], *lists[RANDOM]):
        (ranking,) = shown.rankings
        left_out = len(gallery) - len(ranking.entries)
        assert left_out == (shown.query.identity == gallery[0].identity)
        assert ranking.positives == sum(entry.hit for entry in ranking.entries)


def test_an_index_that_changed_afterwards_is_refused(results):
    measured = measurement("mean", "A2G")
    names = measured.content["per_query"]["tracklet"]
    content = {**measured.content, "per_query": {"tracklet": names[::-1]}}
    with pytest.raises(UserError, match=r"A2G.parquet changed: run `reid retrieve` again"):
        ranked_lists(parsed(), replace(measured, content=content))


def noise(count, height, width):
    seeded = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded)


@pytest.mark.parametrize("height", [4, 64, 256])
def test_a_head_is_gone_and_the_rest_stays(height):
    frames = noise(2, height, height // 2)
    before = frames.clone()
    hidden = hide_heads(frames)
    rows = math.ceil(HEAD * height)
    assert torch.equal(frames, before)
    assert torch.equal(hidden[:, :, rows:], frames[:, :, rows:])
    heads = hidden[:, :, :rows].int()
    # Nothing is left but a change from the left to the right: no row differs from the first.
    assert (heads - heads[:, :, :1]).abs().max() <= 1
    assert (torch.diff(heads[:, :, 0]).sign().unique_consecutive(dim=-1).abs() <= 1).all()
    if height >= 64:
        assert heads.float().std() < 0.2 * frames[:, :, :rows].float().std()


def pixels(address):
    head, data = address.split(",")
    assert head == "data:image/jpeg;base64"
    return decode_jpeg(torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)).int()


def test_a_strip_shows_the_frames_of_the_clip_and_no_head(tmp_path):
    make_tree(tmp_path / "data", frames=5)
    tracklets = indexing.build(tmp_path / "data").splits["A2G"]
    clip = Clip(frames=3, height=224, width=112)
    clips = TrackletDataset(tracklets, tmp_path / "data", clip=clip, train=False)
    kept, blurred = (pixels(strip(clips, 0, 8, faces)) for faces in ("keep", "blur"))
    assert kept.shape == blurred.shape == (3, CELL[0], 3 * CELL[1])
    assert pixels(strip(clips, 0, 2, "keep")).shape[2] == 2 * CELL[1]
    small = torch.nn.functional.avg_pool2d(clips[0].frames[0].float(), 2)
    for place, frame in enumerate(small):
        cell = kept[:, :, place * CELL[1] : (place + 1) * CELL[1]]
        assert (cell - frame).abs().mean() < 8
    change = (kept - blurred).abs().float().mean(dim=(0, 2))
    top = math.ceil(HEAD * CELL[0])
    assert change[: top - 4].min() > 1
    assert change[top + 8 :].max() < 1
    (tmp_path / "data" / tracklets[0].path / tracklets[0].frames[0]).unlink()
    with pytest.raises(UserError, match=str(tracklets[0].frames[0])):
        strip(clips, 0, 1, "blur")

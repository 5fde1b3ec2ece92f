"""Tuning: the grid equals single runs, on held-out identities only, and a variant can use it."""

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid import config, status
from reid.errors import UserError
from reid.holdout import VALIDATION, hold_out, part
from reid.report import table
from reid.retrieval import grid, retrieve, submission, tune
from reid.retrieval.counting import grade_blends
from reid.retrieval.metrics import evaluate, group
from reid.retrieval.rerank import k_reciprocal
from tests.retrieval import worlds

GRID = grid.Grid(k1=(4, 9, 30), k2=(1, 3, 6), lambda_values=(0.0, 0.3, 1.0))


@pytest.mark.parametrize("clusters", [0.2, 1.5])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_triple_scores_as_a_single_run(clusters, threads):
    rng = np.random.default_rng(4)
    pids, cams = rng.integers(0, 9, 90), rng.integers(0, 2, 90)
    rows = rng.standard_normal((9, 16))[pids] * clusters + rng.standard_normal((90, 16))
    rows = rows.astype(np.float32)
    rows[40:45] = rows[70:75]  # duplicates: ties
    labels = (pids[:25], pids[25:], cams[:25], cams[25:])
    surface = grid.search(rows[:25], rows[25:], *labels, grid=GRID, threads=threads)
    assert list(surface) == GRID.triples()
    assert (4, 6, 0.0) not in surface  # k2 > k1
    for (k1, k2, value), found in surface.items():
        distances = k_reciprocal(rows[:25], rows[25:], k1=k1, k2=k2, lambda_value=value)
        assert found == pytest.approx(evaluate(distances, *labels).mAP, abs=1e-12)


@given(
    seed=st.integers(0, 2**31),
    levels=st.integers(2, 400),
    near=st.floats(0, 1),
    size=st.integers(2, 200),
    value=st.sampled_from([0.0, 0.28, 0.5, 1.0]),
)
def test_blends_are_graded_as_evaluate_grades_them(seed, levels, near, size, value):
    """Whether many or few Jaccard distances are small, with ties, positives near and far."""
    rng = np.random.default_rng(seed)
    jaccard, distances = rng.integers(0, levels + 1, (2, 3, size)).astype(np.float32) / levels
    jaccard[rng.random(jaccard.shape) > near] = 1
    pids, cams = rng.integers(0, 3, size), rng.integers(0, 2, size)
    labels = (np.arange(3), pids, np.zeros(3, np.int64), cams)
    precision = np.full((3, 1), np.nan)
    grade_blends(
        jaccard,
        distances,
        distances.min(axis=1),
        *(np.array([share], np.float32) for share in (1 - value, value)),
        *group(*labels[:2]),
        *labels[2:],
        precision,
    )
    blend = jaccard * np.float32(1 - value) + distances * np.float32(value)
    np.testing.assert_allclose(
        precision[:, 0], evaluate(blend, *labels).ap_per_query, rtol=0, atol=1e-12
    )


def test_choice_is_the_best_mean_and_says_how_flat_it_is():
    surfaces = {
        "A2G": {(5, 1, 0.1): 0.50, (5, 1, 0.3): 0.60, (9, 1, 0.3): 0.10},
        "G2A": {(5, 1, 0.1): 0.504, (5, 1, 0.3): 0.40, (9, 1, 0.3): 0.10},
    }
    got = tune.choice(surfaces)
    assert got["chosen"] == {"k1": 5, "k2": 1, "lambda_value": 0.1}
    assert got["mAP"] == pytest.approx(0.502)
    assert got["flatness"]["range"] == pytest.approx(0.402)
    assert got["flatness"]["share_within_half_a_point"] == pytest.approx(2 / 3)
    assert got["surface"][1] == {
        "k1": 5, "k2": 1, "lambda_value": 0.3, "mAP": pytest.approx(0.5),
        "mAP_A2G": 0.60, "mAP_G2A": 0.40,
    }  # fmt: skip


def test_held_out_identities_are_disjoint_stable_and_by_seed():
    everyone = range(1, 41)
    held = hold_out(everyone, share=0.25, seed=3)
    assert len(held) == 10
    assert held < set(everyone)
    assert hold_out(reversed(everyone), share=0.25, seed=3) == held
    assert hold_out(everyone, share=0.25, seed=4) != held
    assert len(hold_out(range(1, 42), share=0.25, seed=3) & held) >= 9
    assert hold_out(everyone, share=0, seed=3) == frozenset()
    with pytest.raises(UserError, match="fewer than two to train on"):
        hold_out([1, 2, 3], share=0.5, seed=0)


TRAININGS = {
    "plain": {"backbone": "tiny"},
    "good": {"backbone": "tiny", "validation": {"share": 0.5, "seed": 1}},
}
TUNE = {"k1": [3, 6], "k2": [1, 2], "lambda_values": [0.2, 0.8]}


def tuned_settings(**changes):
    base = {"trainings": TRAININGS, "tune": TUNE}
    variants = {
        "good": {"training": "good", "label": "Good"},
        "tuned": {"training": "good", "label": "Tuned", "flip_tta": True, "rerank": "tuned"},
    }
    return worlds.settings(**{**base, "variants": variants, **changes})


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = tuned_settings()
    results = worlds.make(options)
    held = part(worlds.train_tracklets(), options.trainings["good"].validation, VALIDATION)
    rows = [worlds.features_of(held, seed=s, noise=2.0) for s in (1, 2)]
    worlds.write_features(results.features("good", 1, VALIDATION), *rows)
    return options, results, held, rows


def test_run_writes_the_choice_and_the_variant_uses_it(world, capsys):
    options, results, held, rows = world
    tune.run(options, "tuned", 1)
    found = json.loads(results.tuned("tuned", 1).read_text())
    assert found["identities"] == len({t.identity for t in held}) == 6
    assert len(found["surface"]) == 8
    assert set(found["protocols"]) == {"A2G", "G2A", "A2A"}
    # The surface is what the variant would score on the held-out identities.
    best = found["chosen"]
    assert capsys.readouterr().out == (
        f"wrote {results.tuned('tuned', 1)}: k1 {best['k1']}, k2 {best['k2']}, "
        f"lambda_value {best['lambda_value']}: mAP {100 * found['mAP']:.2f} % over A2G, G2A, A2A "
        f"of 6 held-out identities, {100 * found['mAP_without_rerank']:.2f} % without re-ranking\n"
    )
    features = (rows[0] + rows[1]) / np.float32(2)
    scores = []
    for protocol in ("A2G", "G2A", "A2A"):
        query, gallery = tune.sides(held, protocol)
        labels = retrieve.labels([held[i] for i in query], [held[i] for i in gallery])
        distances = k_reciprocal(features[query], features[gallery], **best)
        scores.append(evaluate(distances, *labels).mAP)
    assert found["mAP"] == pytest.approx(statistics.fmean(scores))

    retrieve.run(options, "tuned", 1, "A2G")
    report = json.loads(results.retrieval("tuned", 1, "A2G").read_text())
    assert {key: report["rerank"][key] for key in best} == best
    table.run(options)
    assert "Tuned, A2G" not in capsys.readouterr().out

    found["chosen"]["k1"] = 5
    results.tuned("tuned", 1).write_text(json.dumps(found))
    table.run(options)
    assert "Tuned, A2G: stale: the tuning changed afterwards." in capsys.readouterr().out


def test_retrieval_of_a_tuned_variant_before_tuning_is_an_error(world):
    options, *_ = world
    message = "tune/tuned/seed1.json does not exist: run `reid tune --variant tuned --seed 1`"
    with pytest.raises(UserError, match=message):
        retrieve.run(options, "tuned", 1, "A2G")


VALIDATION_CHANGED = {**TRAININGS, "good": {"backbone": "tiny", "validation": {"share": 0.25}}}
FLIP_CHANGED = {
    "good": {"training": "good", "label": "Good"},
    "tuned": {"training": "good", "label": "Tuned", "rerank": "tuned"},
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tune": {**TUNE, "k1": [3, 7]}}, "tune"),
        ({"trainings": VALIDATION_CHANGED}, "validation"),
        ({"variants": FLIP_CHANGED}, "flip_tta"),
        ({"dataset": {"name": "small", "root": "data", "protocols": ["A2G"]}}, "protocols"),
    ],
)
def test_a_tuning_of_other_options_is_refused_and_no_row(world, capsys, changes, named):
    options, *_ = world
    tune.run(options, "tuned", 1)
    retrieve.run(options, "tuned", 1, "A2G")
    others = tuned_settings(**changes)
    reason = f"was made with other options ({named})"
    message = re.escape(f"{reason}: run `reid tune --variant tuned --seed 1`")
    with pytest.raises(UserError, match=message):
        retrieve.run(others, "tuned", 1, "A2G")
    with pytest.raises(UserError, match=message):
        submission.run(others, "tuned", 1)
    table.run(others)
    assert f"Tuned, A2G: stale: the tuning {reason}." in capsys.readouterr().out
    found = {job.step: status.status(job) for job in status.jobs(others) if job.output.exists()}
    assert found["tune"].state == found["retrieve"].state == "outdated"
    assert found["tune"].detail == f"the tuning {reason}"
    assert {status.status(job).state for job in status.jobs(options)} == {"done", "waiting"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("features", "was made of other features"),
        ("old", "does not say what it was made with"),
        ("list", "does not say what it was made with"),
        ("cut", "is damaged"),
    ],
)
def test_a_tuning_of_other_features_or_a_damaged_one_is_refused(world, damage, reason):
    options, results, _, rows = world
    tune.run(options, "tuned", 1)
    path = results.tuned("tuned", 1)
    content = json.loads(path.read_text())
    if damage == "features":
        worlds.write_features(results.features("good", 1, VALIDATION), *rows[::-1])
    elif damage == "old":
        del content["options"]
        path.write_text(json.dumps(content))
    else:
        path.write_text("[]" if damage == "list" else path.read_text()[:-10])
    with pytest.raises(UserError, match=f"seed1.json {reason}: run `reid tune --variant tuned"):
        retrieve.run(options, "tuned", 1, "A2G")


def test_nothing_held_out_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = worlds.settings()
    worlds.make(options)
    with pytest.raises(UserError, match=r"validation.share is 0"):
        tune.run(options, "rerank", 1)
    with pytest.raises(UserError, match=r"variants.tuned is tuned, but trainings.plain holds no"):
        worlds.settings(variants={"tuned": {"training": "plain", "label": "x", "rerank": "tuned"}})
    with pytest.raises(UserError, match="leave out one of them"):
        worlds.settings(
            trainings=TRAININGS,
            variants={
                "both": {
                    "training": "good", "label": "x", "tuned": True,
                    "rerank": {"k1": 3, "k2": 2, "lambda_value": 0.1},
                }
            },
        )  # fmt: skip


def test_protocols_without_positives_are_left_out(world):
    options, results, held, rows = world
    train = [t for t in worlds.train_tracklets() if t.camera != 2]
    worlds.write_split(results, train)
    kept = [place for place, t in enumerate(held) if t.camera != 2]
    worlds.write_features(results.features("good", 1, VALIDATION), *(r[kept] for r in rows))
    tune.run(options, "tuned", 1)
    found = json.loads(results.tuned("tuned", 1).read_text())
    assert set(found["protocols"]) == {"A2G", "G2A"}

    worlds.write_split(results, [t for t in train if t.camera == 0])
    ground = [place for place, t in enumerate(held) if t.camera == 0]
    worlds.write_features(results.features("good", 1, VALIDATION), *(r[ground] for r in rows))
    with pytest.raises(UserError, match="no held-out query has a positive in any protocol"):
        tune.run(options, "tuned", 1)


def test_the_shipped_example_is_valid():
    folder = Path(__file__).parents[2] / "config"
    options = config.load([folder / "config.yaml", folder / "tuned.yaml"])
    variant = options.variants["scaled_holdout_tuned"]
    assert variant.tuned
    assert options.trainings[variant.training].validation.share > 0
    assert options.trainings["scaled"].validation.share == 0


def test_every_published_triple_says_that_it_was_tuned_on_the_leaderboard():
    folder = Path(__file__).parents[2] / "config"
    options = config.load([folder / f"{name}.yaml" for name in ("config", "tuned", "released")])
    default = (20, 6, 0.3)  # of Zhong et al. 2017
    own = {name: v for name, v in options.variants.items() if v.rerank is not None}
    triples = {name: (v.rerank.k1, v.rerank.k2, v.rerank.lambda_value) for name, v in own.items()}
    tuned = {name for name, triple in triples.items() if triple != default}
    assert len(tuned) == 6
    for name, variant in own.items():
        said = f"{triples[name]} was tuned on the leaderboard, as published."
        assert (said.replace("0.3)", "0.30)") in variant.note) == (name in tuned)


def test_a_grid_without_triples_is_an_error():
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(UserError, match="the grid is empty"):
        grid.search(
            rows, rows, *[[0, 1, 2, 3]] * 2, *[[0] * 4] * 2, grid=grid.Grid((2,), (3,), (0.1,))
        )


@pytest.mark.parametrize(
    ("protocol", "views"),
    [("A2A", {"aerial"}), ("G2G", {"ground"}), ("ALL", {"aerial", "ground"})],
)
def test_without_sessions_or_from_one_side_tracklets_take_turns(protocol, views):
    held = [replace(tracklet, session=None) for tracklet in worlds.train_tracklets()]
    sides = tune.sides(held, protocol)
    expected = [place for place, tracklet in enumerate(held) if tracklet.view in views]
    assert sorted(np.concatenate(sides).tolist()) == expected  # each on one side
    shuffled = np.random.default_rng(0).permutation(len(held))
    others = tune.sides([held[place] for place in shuffled], protocol)
    for side, other in zip(sides, others, strict=True):
        assert set(shuffled[other]) == set(side)
    mine = [held[place] for place in expected if held[place].identity == 5]
    order = sorted(mine, key=lambda tracklet: (tracklet.camera, tracklet.path))
    for side, kept in zip(sides, (order[::2], order[1::2]), strict=True):
        assert [held[p] for p in side if held[p].identity == 5] == kept


def test_junk_is_no_positive(world, capsys):
    """Everything of one view was seen by one camera: nobody can be found in A2A and G2G."""
    _, results, *_ = world
    protocols = ["A2A", "G2G", "A2G"]
    one = tuned_settings(dataset={"name": "small", "root": "data", "protocols": protocols})
    train = [replace(t, session=None, camera=min(t.camera, 1)) for t in worlds.train_tracklets()]
    worlds.write_split(results, train)
    tune.run(one, "tuned", 1)
    assert set(json.loads(results.tuned("tuned", 1).read_text())["protocols"]) == {"A2G"}
    left_out = "left out, no held-out query has a positive: A2A, G2G\n"
    assert capsys.readouterr().out.startswith(left_out)

    same = [replace(tracklet, camera=0) for tracklet in train]
    worlds.write_split(results, same)
    with pytest.raises(UserError, match="no held-out query has a positive in any protocol"):
        tune.run(one, "tuned", 1)

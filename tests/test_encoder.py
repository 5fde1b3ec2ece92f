"""The library: a trained folder, image folders in, features and rankings out."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from reid import TrackletEncoder
from reid.config import ReRanking
from reid.encoder import Encoded
from reid.errors import UserError
from reid.features import extract
from reid.files import write_json
from reid.paths import Results
from reid.retrieval.rerank import k_reciprocal
from tests import trained
from tests.clips import TINY, state_dict
from tests.trees import write_frame


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working directory with the folder of a run of no epochs, and features of a protocol."""
    home = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        options = trained.make_home(home)
        extract.run(options, "small", 1, "A2G")
    return home


@pytest.fixture
def run(home, monkeypatch):
    monkeypatch.chdir(home)
    return Results.of("tiny").run("small", 1)


@pytest.fixture
def encoder(run):
    return TrackletEncoder(run, device="cpu")


EXAMPLE = Path(__file__).parents[1] / "examples" / "rank_tracklets.py"
CASE = "data/case1_aerial_to_ground"


def test_features_are_those_of_extraction(encoder, run):
    query = encoder.encode(f"{CASE}/query", batch_size=3)
    gallery = encoder.encode(f"{CASE}/gallery")
    stored = load_file(Results.of("tiny").features("small", 1, "A2G"))
    expected = (stored["features"] + stored["flipped"]) / 2
    got = np.concatenate([query.features, gallery.features])
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert [folder.name for folder in query.folders] == sorted(f.name for f in query.folders)
    plain = encoder.encode(list(query.folders[::-1]), flip_tta=False)
    assert plain.folders == query.folders[::-1]
    np.testing.assert_allclose(plain.features[::-1], stored["features"][: len(query)], atol=2e-5)


def test_rank_is_cosine_or_reranked(encoder):
    rng = np.random.default_rng(0)
    sides = [Encoded(tuple(range(n)), rng.standard_normal((n, 8), np.float32)) for n in (3, 9)]
    ranking = encoder.rank(*sides)
    unit = [side.features / np.linalg.norm(side.features, axis=1)[:, None] for side in sides]
    np.testing.assert_array_equal(ranking.index, np.argsort(-unit[0] @ unit[1].T, axis=1))
    parameters = {"k1": 4, "k2": 2, "lambda_value": 0.3}
    again = encoder.rank(*sides, rerank=ReRanking(**parameters), top=2)
    distances = k_reciprocal(sides[0].features, sides[1].features, **parameters)
    np.testing.assert_array_equal(again.index, np.argsort(distances, axis=1)[:, :2])
    np.testing.assert_array_equal(again.distance, np.sort(distances, axis=1)[:, :2])


def test_the_example_runs(run, capsys):
    runpy.run_path(str(EXAMPLE))["main"](str(run), f"{CASE}/query", f"{CASE}/gallery")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("0005_0100: 000")


def test_the_example_says_how_it_is_used(monkeypatch):
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), "one"])
    with pytest.raises(SystemExit, match=r"^usage: python .* RUN_FOLDER QUERY_FOLDER GALLERY_"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_other_file_names_need_a_camera(encoder, tmp_path):
    folder = tmp_path / "somebody"
    for number in range(2):
        write_frame(folder / f"photo{number}.jpg", seed=number, height=40)
    with pytest.raises(UserError, match=r"photo0.jpg: unknown file name: .*; say what took it"):
        encoder.encode([folder])
    ground, aerial = (encoder.encode([folder], camera=camera).features for camera in (0, 1))
    assert ground.shape == (1, TINY.width + TINY.embed)
    assert not np.array_equal(ground, aerial)


def test_frames_are_those_of_the_index_in_its_order(encoder, tmp_path):
    """Unpadded numbers, and what a Mac leaves: the same features as of padded numbers alone."""
    for number in range(1, 13):
        write_frame(tmp_path / "padded" / f"{number:02d}.jpg", seed=number, height=40)
        write_frame(tmp_path / "data" / "t" / f"{number}.jpg", seed=number, height=40)
    for junk in ("t/._1.jpg", "__MACOSX/t/._1.jpg", "t/.ipynb_checkpoints/1-checkpoint.jpg"):
        write_frame(tmp_path / "data" / junk, seed=99, height=40)
    (tmp_path / "data/linked").symlink_to(tmp_path / "padded")
    whole = encoder.encode(tmp_path / "data", camera=0)
    assert [folder.name for folder in whole.folders] == ["linked", "t"]
    assert np.array_equal(*whole.features)


def test_bad_input_is_one_clear_error(encoder, run, tmp_path):
    def folder(name, *files):
        for file in files:
            write_frame(tmp_path / name / file, seed=0, height=30)
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    one = Encoded(("a",), np.ones((1, 8), np.float32))
    aerial = "0007_23_10_2024_09_18_5.8_10_30_3_0_1_1_0_-1_-1_6_0_0_6_152_178_{}_00001.jpg"
    cases = [
        (lambda: encoder.encode(tmp_path / "nowhere"), "is not a folder"),
        (lambda: encoder.encode([tmp_path / "nowhere"]), "is not a folder"),
        (lambda: encoder.encode(folder("empty")), "holds no folder with .jpg"),
        (lambda: encoder.encode([folder("empty")]), "has no .jpg"),
        (lambda: encoder.encode([]), "nothing to encode"),
        (lambda: encoder.encode(CASE, camera=3), "0 to 2, got 3"),
        (
            lambda: encoder.encode([folder("two", aerial.format(1), aerial.format(2))]),
            "different cameras",
        ),
        (lambda: encoder.encode([folder("odd", "7_a_00001.jpg")]), "unknown file name: 3 fields"),
        (lambda: encoder.rank(one, Encoded((), np.ones((0, 8), np.float32))), "gallery is empty"),
        (lambda: encoder.rank(one, Encoded(("b",), np.ones((1, 9), np.float32))), "have size 8"),
        (lambda: encoder.rank(one, Encoded(("b",), one.features * np.nan)), "not finite"),
        (lambda: encoder.rank(one, one, top=0), "top must be at least 1"),
        (lambda: encoder.rank(one, one.features), "gallery must be what encode"),
        (lambda: encoder.rank(one, one, rerank={"k1": 2}), "rerank must be a ReRanking"),
        (lambda: encoder.encode(CASE, camera=True), "0 to 2, got True"),
        (lambda: encoder.encode(CASE, batch_size=0), "batch_size must be at least 1"),
        (lambda: TrackletEncoder(run / "manifest.json"), "is no folder of a run"),
        (lambda: TrackletEncoder(tmp_path), r"manifest.json does not exist"),
        (lambda: TrackletEncoder(run, device="tpu"), "device must be one of auto, cpu, cuda"),
        (lambda: TrackletEncoder(run, test_sampling="last"), "test_sampling must be one of"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
    write_json(tmp_path / "manifest.json", {"seed": 1})
    with pytest.raises(UserError, match="is of no finished run"):
        TrackletEncoder(tmp_path)
    other = {name: tensor + 1 for name, tensor in state_dict(TINY).items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="was made with backbone"):
        TrackletEncoder(run, weights=str(tmp_path / "other.safetensors"))
    assert torch.is_grad_enabled()

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
from tests.trees import write_frame, write_tracklet

EXAMPLE = Path(__file__).parents[1] / "examples" / "rank_tracklets.py"
RUN = Results(Path("results/tiny")).run("small", 1)
CASE = "data/case1_aerial_to_ground"


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
def encoder(home, monkeypatch):
    monkeypatch.chdir(home)
    return TrackletEncoder(RUN, device="cpu")


def test_features_are_those_of_extraction(encoder):
    query = encoder.encode(f"{CASE}/query", batch_size=3)
    gallery = encoder.encode(f"{CASE}/gallery")
    stored = load_file(Results(Path("results/tiny")).features("small", 1, "A2G"))
    assert "frame_weights" not in stored  # mean pooling
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


def test_the_example_runs_and_says_how_it_is_used(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), str(RUN), f"{CASE}/query", f"{CASE}/gallery"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("0005_0100: 000")
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), "one"])
    with pytest.raises(SystemExit, match=r"^usage: python .* RUN_FOLDER QUERY_FOLDER GALLERY_"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_frames_are_those_of_the_index_in_its_order_and_other_names_need_a_camera(
    encoder, tmp_path
):
    """Unpadded numbers, and what a Mac leaves: the same features as of padded numbers alone."""
    for number in range(1, 13):
        write_frame(tmp_path / "padded" / f"{number:02d}.jpg", seed=number, height=40)
        write_frame(tmp_path / "data" / "t" / f"{number}.jpg", seed=number, height=40)
    for junk in ("t/._1.jpg", "__MACOSX/t/._1.jpg", "t/.ipynb_checkpoints/1-checkpoint.jpg"):
        write_frame(tmp_path / "data" / junk, seed=99, height=40)
    (tmp_path / "data/linked").symlink_to(tmp_path / "padded")
    whole, aerial = (encoder.encode(tmp_path / "data", camera=camera) for camera in (0, 1))
    assert [folder.name for folder in whole.folders] == ["linked", "t"]
    assert whole.features.shape == (2, TINY.width + TINY.embed)
    assert np.array_equal(*whole.features)
    assert not np.array_equal(whole.features, aerial.features)
    with pytest.raises(
        UserError, match=r"t/1.jpg: unknown file name: .*, say what took the images"
    ):
        encoder.encode([tmp_path / "data" / "t"])


ONE = Encoded(("a",), np.ones((1, 8), np.float32))
BAD = {
    "is not a folder": lambda encoder: encoder.encode("nowhere"),
    "nowhere is not a folder": lambda encoder: encoder.encode(["nowhere"]),
    "holds no folder with .jpg": lambda encoder: encoder.encode("empty"),
    "empty: empty tracklet": lambda encoder: encoder.encode(["empty"]),
    "empty tracklet": lambda encoder: encoder.encode(["empty"], camera=0),
    "nothing to encode": lambda encoder: encoder.encode([]),
    "0 to 2, got 3": lambda encoder: encoder.encode(CASE, camera=3),
    "0 to 2, got True": lambda encoder: encoder.encode(CASE, camera=True),
    "batch_size must be at least 1": lambda encoder: encoder.encode(CASE, batch_size=0),
    "differs from the rest of its tracklet": lambda encoder: encoder.encode(["two"]),
    "different people": lambda encoder: encoder.encode(["people"]),
    "unknown file name: 3 fields": lambda encoder: encoder.encode(["odd"]),
    "gallery is empty": lambda encoder: encoder.rank(ONE, Encoded((), np.ones((0, 8)))),
    "have size 8": lambda encoder: encoder.rank(ONE, Encoded(("b",), np.ones((1, 9)))),
    "not finite": lambda encoder: encoder.rank(ONE, Encoded(("b",), ONE.features * np.nan)),
    "top must be at least 1": lambda encoder: encoder.rank(ONE, ONE, top=0),
    "is no folder of a run": lambda encoder: TrackletEncoder(RUN / "manifest.json"),
    "empty holds no finished run": lambda encoder: TrackletEncoder("empty"),
    "unfinished holds no finished run": lambda encoder: TrackletEncoder("unfinished"),
    "device must be one of auto, cpu, cuda": lambda encoder: TrackletEncoder(RUN, device="tpu"),
    "test_sampling must be one of": lambda encoder: TrackletEncoder(RUN, test_sampling="last"),
    "was made with backbone": lambda encoder: TrackletEncoder(RUN, weights="other.safetensors"),
}


def test_bad_input_is_one_clear_error(encoder, tmp_path, monkeypatch):
    for folder in ("data", "results", "tiny.safetensors"):
        (tmp_path / folder).symlink_to(Path.cwd() / folder)
    monkeypatch.chdir(tmp_path)
    aerial = "0007_23_10_2024_09_18_5.8_10_30_3_0_1_1_0_-1_-1_6_0_0_6_152_178_{}_00001.jpg"
    Path("empty").mkdir()
    for path in (f"two/{aerial.format(1)}", f"two/{aerial.format(2)}", "odd/7_a_00001.jpg"):
        write_frame(Path(path), seed=0, height=30)
    for identity in (1, 2):
        write_tracklet(Path("people"), identity, camera=0)
    write_json(Path("unfinished/stage2.manifest.json"), {"seed": 1})
    other = {name: tensor + 1 for name, tensor in state_dict(TINY).items()}
    save_file(other, "other.safetensors")
    for message, call in BAD.items():
        with pytest.raises(UserError, match=message):
            call(encoder)
    assert torch.is_grad_enabled()

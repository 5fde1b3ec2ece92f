"""A pack of only the frames that a configuration can sample."""

import pytest
import torch
import yaml

from reid.cli import main
from reid.config import Clip
from reid.data import index, pack
from reid.data.dataset import TrackletDataset
from reid.data.loading import loader
from reid.data.pack import sampled
from reid.data.packed import Packed
from reid.data.sampler import sequential_batches
from reid.errors import UserError
from tests.trees import EXPERIMENT, make_tree

SIZE = {"height": 16, "width": 8}
FIRST, CENTRE = (Clip(frames=3, test_sampling=how, **SIZE) for how in ("first", "center"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"), train=4, tracklets=2, frames=11)


@pytest.fixture(scope="module")
def splits(tree):
    return index.build(tree).splits


@pytest.fixture(scope="module")
def every(splits):
    return [tracklet for split in splits.values() for tracklet in split]


@pytest.fixture(scope="module")
def small(tree, every, tmp_path_factory):
    """A pack for clips of up to four frames."""
    folder = tmp_path_factory.mktemp("pack")
    pack.pack(every, tree, folder, keep=sampled(4, [FIRST, CENTRE]))
    return folder


@pytest.mark.parametrize("clip", [FIRST, CENTRE], ids=lambda clip: clip.test_sampling)
def test_extraction_from_it_sees_the_same_frames(tree, splits, small, clip):
    for split in ("A2G", "G2A", "A2A"):
        plain = TrackletDataset(splits[split], tree, clip=clip, train=False)
        packed = TrackletDataset(splits[split], tree, clip=clip, train=False, pack=small)
        batches = sequential_batches(len(plain), batch_size=4)
        loaded = loader(plain, batches, workers=0), loader(packed, batches, workers=0)
        for one, two in zip(*loaded, strict=True):
            assert torch.equal(one.frames, two.frames)


def test_it_holds_what_clips_can_take_and_no_more(tree, splits, small):
    kept = {0, 3, 6} | {1, 5, 9} | {0, 2, 4, 6} | {1, 4, 6, 9}
    reader = Packed(small, splits["A2G"])
    for tracklet in splits["A2G"]:
        for position, name in enumerate(tracklet.frames):
            if position in kept:
                stored = (tree / tracklet.path / name).read_bytes()
                assert reader.read(tracklet, position) == stored
            else:
                message = rf"frame {position} of {tracklet.path} is not.*--frames-per-tracklet for"
                with pytest.raises(UserError, match=message):
                    reader.read(tracklet, position)
    for tracklet in splits["train"]:  # whole: training may draw any frame
        frames = [Packed(small, [tracklet]).read(tracklet, position) for position in range(11)]
        assert frames == [(tree / tracklet.path / name).read_bytes() for name in tracklet.frames]


def test_another_selection_packs_anew(tree, every, tmp_path):
    folder = tmp_path / "pack"
    sizes = []
    for keep in ({"keep": sampled(3, [FIRST])}, {"keep": sampled(4, [FIRST])}, {}):
        pack.pack(every, tree, folder, **keep)
        sizes.append((folder / "00000.tar").stat().st_size)
        pack.verify(folder)
    assert sizes == sorted(set(sizes))
    reader = Packed(folder, every)
    assert all(reader.read(every[-1], position) for position in range(11))


@pytest.mark.parametrize(
    ("frames", "message"), [(0, "expected 1 to 4096"), (2, "takes clip.frames 3")]
)
def test_fewer_than_a_clip_takes_is_one_clear_error(frames, message):
    with pytest.raises(UserError, match=message):
        sampled(frames, [FIRST])


def configure(folder, tree, **dataset):
    content = {"dataset": {"name": "tiny", "root": str(tree), **dataset}, **EXPERIMENT}
    content["runtime"] = {"pack": "packed", "workers": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


def test_through_the_command_line_with_the_verdict_of_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tree = make_tree(tmp_path / "data", frames=4)
    configure(tmp_path, tree)

    def run(*verb):
        return main([*verb, "--config", "config.yaml"])

    assert run("index") == 0
    assert run("pack", "--frames-per-tracklet", "2") == 1
    assert "give at least that" in capsys.readouterr().err
    assert run("pack", "--frames-per-tracklet", "3") == 0
    tracklets = index.read_split(tmp_path / "results/tiny/index/A2A.parquet")
    with pytest.raises(UserError, match="frame 3 of"):
        Packed(tmp_path / "packed", tracklets).read(tracklets[0], 3)
    bad = sorted((tree / index.build(tree).splits["train"][0].path).iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:40])
    assert run("check") == 0
    assert run("pack") == 1
    error = capsys.readouterr().err
    assert "1 frames that results/tiny/check/damaged.csv names are in the index" in error
    assert bad.name in error
    configure(tmp_path, tree, damaged="results/tiny/check/damaged.csv", max_rejected_share=0.1)
    assert run("index") == run("pack") == 0
    assert len(index.read_split(tmp_path / "results/tiny/index/train.parquet")[0].frames) == 3

import math
import os
import random
import shutil
import signal
import subprocess
import tarfile
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from reid.cli import main
from reid.config import Clip
from reid.data import index, pack
from reid.data.dataset import TrackletDataset
from reid.data.frames import Files
from reid.data.loading import loader
from reid.data.packed import Packed
from reid.data.sampler import pk_batches
from reid.data.tracklet import Tracklet
from reid.errors import UserError
from tests.runs import in_a_fork
from tests.trees import EXPERIMENT, frame_name, make_tree, write_frame

SMALL = 10_000  # bytes: several shards of a few tracklets each


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"), train=4, tracklets=2, frames=6)


@pytest.fixture(scope="module")
def tracklets(tree):
    splits = index.build(tree).splits
    return [tracklet for split in splits.values() for tracklet in split]


@pytest.fixture
def packed(tree, tracklets, tmp_path):
    pack.pack(tracklets, tree, tmp_path / "pack", largest_shard=SMALL)
    return tmp_path / "pack"


def content(folder):
    """Bytes of every file (Parquet files are written deterministically)."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_frame_reads_back_from_few_large_files(tree, tracklets, packed):
    reader, sizes = Packed(packed, tracklets), []
    for tracklet in tracklets:
        reader.expect(tracklet, range(len(tracklet.frames)))
        for position, name in enumerate(tracklet.frames):
            stored = (tree / tracklet.path / name).read_bytes()
            assert reader.read(tracklet, position) == stored
            sizes.append(512 + -(-len(stored) // 512) * 512)  # header, content
    shards = [path.stat().st_size for path in sorted(packed.glob("*.tar"))]
    assert len(shards) > 3
    assert sum(shards) == sum(sizes) + 1024 * len(shards)
    assert all(size >= SMALL for size in shards[:-1])


def test_a_frame_overwritten_in_place_is_packed_anew_after_indexing(tmp_path):
    tree = make_tree(tmp_path / "tree", frames=2)
    train = index.build(tree).splits["train"]
    pack.pack(train, tree, tmp_path / "pack")
    frame = tree / train[0].path / train[0].frames[0]
    frame.write_bytes(frame.read_bytes() + b"more")
    with pytest.raises(UserError, match=rf"{train[0].path} have other sizes than when indexed"):
        pack.pack(train, tree, tmp_path / "other")
    pack.pack(index.build(tree, check_sizes=False).splits["train"], tree, tmp_path / "unseen")
    now = index.build(tree).splits["train"]
    with pytest.raises(UserError, match=rf"does not hold {train[0].path} as indexed"):
        Packed(tmp_path / "pack", now)
    pack.pack(now, tree, tmp_path / "pack")
    assert Packed(tmp_path / "pack", now).read(now[0], 0).endswith(b"more")
    frame.rename(frame.with_name(frame_name(1, 90, camera=0)))
    with pytest.raises(UserError, match=rf"does not hold {train[0].path} as indexed"):
        Packed(tmp_path / "pack", index.build(tree).splits["train"])


def test_packed_and_unpacked_batches_are_identical(tree, tracklets, packed):
    train = [tracklet for tracklet in tracklets if tracklet.subset == "train"]
    options = {"clip": Clip(frames=4, height=32, width=16), "train": True, "seed": 1}
    plain = TrackletDataset(train, tree, **options)
    fast = TrackletDataset(train, tree / "not there", pack=packed, **options)
    batches = pk_batches(plain.labels, stage="stage2", batch_size=8, instances=4, seed=0, epoch=0)
    loaded = loader(plain, batches, workers=0), loader(fast, batches, workers=2)
    for one, two in zip(*loaded, strict=True):
        assert torch.equal(one.frames, two.frames)
        assert torch.equal(one.heights, two.heights)


def test_threads_change_nothing_and_a_second_run_writes_no_shard(tree, tracklets, packed, tmp_path):
    pack.pack(tracklets, tree, tmp_path / "again", largest_shard=SMALL, workers=1)
    assert content(tmp_path / "again") == content(packed)
    before = {path.name: path.stat().st_mtime_ns for path in packed.glob("0*")}
    pack.pack(tracklets, tree, packed, largest_shard=SMALL)
    assert {path.name: path.stat().st_mtime_ns for path in packed.glob("0*")} == before


def flip_a_bit(folder):
    data = bytearray((folder / "00001.tar").read_bytes())
    data[pd.read_parquet(folder / "00001.parquet")["offset"][1][2] + 9] ^= 1
    (folder / "00001.tar").write_bytes(data)


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 8)


def exchange(folder):
    (folder / "00000.parquet").rename(folder / "x")
    (folder / "00001.parquet").rename(folder / "00000.parquet")
    (folder / "x").rename(folder / "00001.parquet")


NO_MANIFESTS = (b"", bytes(99), b"\xff", b"null", b"[]", b"{}", b"[" * 99999, b'{"shards": [{}]}',
                b'{"shards": {"a": 1}}', b'{"shards": [{"tar_bytes": 1e999, "table_sha256": "a"}]}',
                b'{"shards": [{"tar_bytes": 1, "table_sha256": null}]}')  # fmt: skip


def manifest(content):
    return lambda folder: (folder / "pack.json").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"00001\.tar is not what was packed"),
        (cut("00001.tar"), r"00001\.tar is not what was packed"),
        (lambda folder: (folder / "00001.tar").unlink(), r"00001\.tar is not what was packed"),
        (cut("00001.parquet"), r"00001\.parquet is damaged"),
        (lambda folder: (folder / "00001.parquet").unlink(), r"00001\.parquet is damaged"),
        (exchange, r"00000\.parquet is not what was packed"),
        (cut("pack.json"), r"pack\.json is damaged or of another version"),
        *((manifest(text), "of another version") for text in NO_MANIFESTS),
        (lambda folder: (folder / "pack.json").unlink(), "holds no finished pack"),
    ],
)
def test_damage_is_found_when_read_and_when_verified(tracklets, packed, damage, message):
    pack.verify(packed)
    damage(packed)
    with pytest.raises(UserError, match=message):
        pack.verify(packed)
    with pytest.raises(UserError, match=message):
        [Packed(packed, tracklets).read(t, i) for t in tracklets for i in range(len(t.frames))]


def test_a_table_of_another_version_is_packed_anew(tree, tracklets, packed):
    whole = content(packed)
    table = packed / "00001.parquet"
    pd.read_parquet(table).rename(columns={"names": "modified"}).to_parquet(table)
    pack.pack(tracklets, tree, packed, largest_shard=SMALL)
    assert content(packed) == whole


def test_ordinary_tools_open_it(tree, tracklets, packed):
    """tar lists the frames by their paths; pandas finds the bytes of each."""
    names = []
    for path in sorted(packed.glob("*.tar")):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True)
        names += listed.stdout.splitlines()
        table = pd.read_parquet(path.with_suffix(".parquet"))
        data = path.read_bytes()
        with tarfile.open(path) as opened:
            contents = [opened.extractfile(member).read() for member in opened]
        rows = zip(table["offset"].explode(), table["size"].explode(), strict=True)
        assert [data[start : start + size] for start, size in rows] == contents
    assert names == [f"{t.folder}/{frame}" for t in tracklets for frame in t.frames]
    first = subprocess.run(["tar", "-xOf", packed / "00000.tar", names[0]], capture_output=True)
    assert first.stdout == (tree / names[0]).read_bytes()


@pytest.mark.parametrize("name", ["f" * 90, "f" * 200, "é" * 100, "日本 1"])
def test_names_of_any_length_and_script_are_packed(tmp_path, name):
    folder = tmp_path / "data" / ("d" * 200) / "t"
    write_frame(folder / f"{name}.jpg", seed=1)
    tracklet = Tracklet(
        *(1, "t", f"{'d' * 200}/t", "train", None, 0, None, *[math.nan] * 3), (f"{name}.jpg",)
    )
    pack.pack([tracklet], tmp_path / "data", tmp_path / "pack")
    stored = (folder / f"{name}.jpg").read_bytes()
    assert Packed(tmp_path / "pack", [tracklet]).read(tracklet, 0) == stored
    with tarfile.open(tmp_path / "pack" / "00000.tar") as opened:
        assert opened.getnames() == [f"{'d' * 200}/t/{name}.jpg"]


def test_a_pack_of_an_older_index_is_refused_and_brought_up_to_date(tree, tmp_path):
    own = tmp_path / "tree"
    shutil.copytree(tree, own)
    old = index.build(own).splits["train"]
    folder = tmp_path / "pack"
    pack.pack(old, own, folder, largest_shard=SMALL)
    write_frame(own / old[-1].path / frame_name(4, 50, camera=2, point=6), seed=1)
    new = index.build(own).splits["train"]
    with pytest.raises(UserError, match="run `reid pack` again"):
        Packed(folder, new)
    kept = (folder / "00000.tar").stat().st_mtime_ns
    pack.pack(new, own, folder, largest_shard=SMALL)
    Packed(folder, new)
    assert (folder / "00000.tar").stat().st_mtime_ns == kept
    pack.pack(new[:2], own, folder, largest_shard=SMALL)
    assert len(list(folder.glob("*.tar"))) == 1
    with pytest.raises(UserError, match="does not hold"):
        Packed(folder, new)


def test_through_the_command_line(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = {"dataset": {"name": "tiny", "root": str(tree)}, **EXPERIMENT}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "pack.yaml").write_text(yaml.safe_dump({"runtime": {"pack": "packed"}}))
    configs = ["--config", "base.yaml", "--config", "pack.yaml"]
    assert main(["index", "--config", "base.yaml"]) == 0
    assert main(["pack", "--config", "base.yaml"]) == 1
    assert "runtime.pack is not set" in capsys.readouterr().err
    assert main(["pack", "--verify", *configs]) == 1
    assert "packed holds no finished pack" in capsys.readouterr().err
    assert main(["pack", *configs]) == 0
    assert main(["pack", "--verify", *configs]) == 0
    assert "every frame is as packed" in capsys.readouterr().out
    tracklets = index.read_split(tmp_path / "results" / "tiny" / "index" / "A2A.parquet")
    assert Packed(tmp_path / "packed", tracklets).read(tracklets[0], 0)


# -- killed, and on a full disk --------------------------------------------------------------------


def killing(function, rng, share):
    """`function`, but `share` of its calls kill the process instead."""

    def deadly(*arguments):
        if rng.random() < share:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return deadly


def test_a_pack_killed_at_random_goes_on_and_is_the_same(tree, tracklets, packed, tmp_path):
    def work(kills):
        rng = random.Random(kills)
        Files.read = killing(Files.read, rng, 0.01)
        Path.replace = killing(Path.replace, rng, 0.05)
        pack.pack(tracklets, tree, tmp_path / "killed", largest_shard=SMALL, workers=2)

    for kills in range(1000):
        if not (code := in_a_fork(partial(work, kills))):
            break
        assert code == -signal.SIGKILL
    assert kills > 2
    assert content(tmp_path / "killed") == content(packed)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_is_one_clear_error_and_the_pack_goes_on(
    tree, tracklets, packed, small_disk
):
    folder = small_disk / "pack"
    with pytest.raises(UserError, match=r"No space left on device.*make room and run `reid pack`"):
        pack.pack(tracklets, tree, folder, largest_shard=SMALL)
    whole = sorted(folder.glob("*.parquet"))
    assert whole
    assert not list(folder.glob(".*.tmp"))
    for path in (path for done in whole for path in folder.glob(f"{done.stem}.*")):
        assert path.read_bytes() == (packed / path.name).read_bytes()
    with pytest.raises(UserError, match="no finished pack"):
        Packed(folder, tracklets)

    resize = ["mount", "-o", "remount,size=8m", str(small_disk)]
    subprocess.run(resize, check=True)
    times = {path: path.stat().st_mtime_ns for path in whole}
    pack.pack(tracklets, tree, folder, largest_shard=SMALL)
    assert content(folder) == content(packed)
    assert {path: path.stat().st_mtime_ns for path in whole} == times

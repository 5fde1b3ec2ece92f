"""A pack killed at random, and one on a disk that is really full."""

import os
import random
import signal
import subprocess
import traceback
from functools import partial
from pathlib import Path

import pytest

from reid.data import index, pack
from reid.data.frames import Files
from reid.data.packed import Packed
from reid.errors import UserError
from tests.runs import wait
from tests.trees import make_tree

SMALL = 10_000  # bytes: several shards of a few tracklets each


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"), train=4, test=2, tracklets=2, frames=5)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def dies_of_it(work, chances):
    """Whether a forked child that does `work` is killed by one of its `chances` to be."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            chances()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = wait(pid)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def killing(function, rng, share):
    """`function`, but `share` of its calls kill the process instead."""

    def deadly(*arguments):
        if rng.random() < share:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return deadly


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pack_killed_at_random_goes_on_and_is_the_same(tree, tmp_path, seed):
    every = [tracklet for split in index.build(tree).splits.values() for tracklet in split]
    pack.pack(every, tree, tmp_path / "whole", largest_shard=SMALL)

    def work():
        pack.pack(every, tree, tmp_path / "killed", largest_shard=SMALL, workers=2)

    def chances(kills):
        rng = random.Random(1000 * seed + kills)
        Files.read = killing(Files.read, rng, 0.01)
        Path.replace = killing(Path.replace, rng, 0.05)

    kills = 0
    while dies_of_it(work, partial(chances, kills)):
        kills += 1
        assert kills < 1000
    assert kills
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
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


def test_a_really_full_disk_is_one_clear_error_and_the_pack_goes_on(tree, tmp_path, small_disk):
    every = [tracklet for split in index.build(tree).splits.values() for tracklet in split]
    pack.pack(every, tree, tmp_path / "whole", largest_shard=SMALL)
    folder = small_disk / "pack"
    with pytest.raises(UserError, match=r"No space left on device.*make room and run `reid pack`"):
        pack.pack(every, tree, folder, largest_shard=SMALL)
    whole = sorted(folder.glob("*.parquet"))
    assert whole
    assert not list(folder.glob(".*.tmp"))
    for path in (path for done in whole for path in folder.glob(f"{done.stem}.*")):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    with pytest.raises(UserError, match="no finished pack"):
        Packed(folder, every)

    resize = ["mount", "-o", "remount,size=8m", str(small_disk)]
    subprocess.run(resize, check=True)
    times = {path: path.stat().st_mtime_ns for path in whole}
    pack.pack(every, tree, folder, largest_shard=SMALL)
    assert content(folder) == content(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in whole} == times

"""Index and pack killed at random, and a pack on a disk that is really full."""

import os
import random
import shutil
import signal
import subprocess
import traceback
from functools import partial
from pathlib import Path

import pytest

from reid.data import index, pack
from reid.data.frames import Files
from reid.data.journal import Journal
from reid.data.layouts import tree as tree_layout
from reid.data.packed import Packed
from reid.data.scan import Found, Rejected, Unit
from reid.errors import UserError
from tests.runs import wait
from tests.trees import frame_name, make_tree, write_frame

SMALL = 6000  # bytes: several shards of a few tracklets each


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


def killing(function, rng, share, log=None):
    """`function`, but `share` of its calls kill the process instead."""

    def deadly(*arguments):
        if rng.random() < share:
            os.kill(os.getpid(), signal.SIGKILL)
        if log is not None:
            with log.open("a") as opened:
                opened.write(f"{arguments[0]}\n")
        return function(*arguments)

    return deadly


@pytest.mark.parametrize(("seed", "listing"), [(1, True), (2, True), (3, False)])
def test_an_index_killed_at_random_goes_on_and_is_the_same(tree, tmp_path, seed, listing):
    index.build(tree).write(tmp_path / "whole")
    listed = tmp_path / "listed"

    def work():
        journal = tmp_path / "killed" / "scan.journal"
        index.build(tree, workers=2, journal=journal).write(tmp_path / "killed")

    def chances(kills):
        rng = random.Random(1000 * seed + kills)
        share = 0.1 if listing else 0.0
        tree_layout.list_folder = killing(tree_layout.list_folder, rng, share, listed)
        Path.replace = killing(Path.replace, rng, 0.1 - share)

    kills = 0
    while dies_of_it(work, partial(chances, kills)):
        kills += 1
        assert kills < 1000
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    folders = listed.read_text().splitlines()
    tracklets = len(set(folders))
    if listing:
        assert kills
        # Only what was under way at a kill is done again: two persons of at most six tracklets.
        assert tracklets <= len(folders) <= tracklets + kills * 12


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


def found(tmp_path, journal, unit_folders, key="key"):
    """What a journal gives for some person folders, and which of them were looked into."""
    looked = []

    def scan(folder):
        looked.append(folder)
        place = tmp_path / folder
        times = ((folder, place.stat().st_mtime_ns),)
        return Found(rejected=(Rejected(f"{folder}/x", "reason"),), folders=times)

    with Journal(journal, tmp_path, key) as kept:
        given = [kept.scan(Unit(f, "train", lambda f=f: scan(f))) for f in unit_folders]
    return given, looked


def test_a_journal_holds_while_its_folders_do(tmp_path):
    journal = tmp_path / "journal"
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
    first, looked = found(tmp_path, journal, ["1", "2"])
    assert looked == ["1", "2"]
    again, looked = found(tmp_path, journal, ["1", "2", "3"])
    assert (again[:2], looked) == (first, ["3"])
    (tmp_path / "1" / "new").touch()
    (tmp_path / "2").rmdir()
    (tmp_path / "2").mkdir()
    assert found(tmp_path, journal, ["1", "2", "3"])[1] == ["1", "2"]
    assert found(tmp_path, journal, ["1"], key="other")[1] == ["1"]
    assert found(tmp_path, journal, ["1", "3"])[1] == ["1", "3"]


@pytest.mark.parametrize("cut", [1, 5, 18, 30])
def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path, cut):
    journal = tmp_path / "journal"
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    found(tmp_path, journal, ["1", "2"])
    journal.write_bytes(journal.read_bytes()[:-cut])
    if cut == 18:
        assert journal.read_bytes().endswith(b"}")
    assert found(tmp_path, journal, ["1", "2"])[1] == ["2"]
    assert found(tmp_path, journal, ["1", "2"])[1] == []


def test_an_index_with_other_options_does_not_use_what_an_earlier_one_left(tree, tmp_path):
    own = tmp_path / "data"
    shutil.copytree(tree, own)
    empty = own / "train" / "0001" / "0001_0100" / frame_name(1, 90, camera=1, point=2)
    empty.touch()
    journal = tmp_path / "journal"
    kept = Journal.remove
    Journal.remove = lambda self: None
    try:
        assert len(index.build(own, journal=journal).rejected) == 1
        assert not index.build(own, journal=journal, check_sizes=False).rejected
    finally:
        Journal.remove = kept
    # Repaired in place: nothing tells the folder, so a finished index leaves no journal behind.
    assert len(index.build(own, journal=journal).rejected) == 1
    assert not journal.exists()
    write_frame(empty, seed=1)
    assert not index.build(own, journal=journal).rejected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
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

import multiprocessing
import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from reid.claim import MARK
from reid.config import Runtime
from reid.data import index, pack
from reid.data.packed import Packed, pack_for, stage
from reid.errors import UserError
from tests.runs import in_a_fork
from tests.trees import make_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"), frames=6)


@pytest.fixture
def packed(tree, tmp_path):
    tracklets = index.build(tree).splits["train"]
    pack.pack(tracklets, tree, tmp_path / "pack", largest_shard=4000)
    return tmp_path / "pack"


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def test_a_copy_is_the_pack_and_is_made_again_only_where_it_differs(tree, packed, tmp_path):
    folder = stage(packed, tmp_path / "node")
    assert content(folder) == content(packed)
    Packed(folder, index.build(tree).splits["train"])
    before = {path: path.stat().st_ctime_ns for path in folder.glob("0*")}
    assert stage(packed, tmp_path / "node") == folder
    assert {path: path.stat().st_ctime_ns for path in before} == before
    (folder / "00001.tar").replace(folder / "00000.tar")
    assert stage(packed, tmp_path / "node") == folder
    assert content(folder) == content(packed)
    changed = {path.name for path in before if path.stat().st_ctime_ns != before[path]}
    assert changed == {"00000.tar", "00001.tar"}


def test_jobs_that_start_together_copy_once(packed, tmp_path, monkeypatch):
    log, copy = tmp_path / "log", shutil.copy2

    def logged(source, target):
        with log.open("a") as opened:
            opened.write(f"{source.name}\n")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copy2", logged)
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=stage, args=(packed, tmp_path / "node")) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert sorted(log.read_text().split()) == sorted(content(packed))


def test_no_room_is_said_before_anything_is_copied(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"GB free.*runtime\.stage_to"):
        stage(packed, tmp_path / "node")


def test_what_a_killed_copy_left_is_removed_and_the_copy_finished(packed, tmp_path):
    copy, calls = shutil.copy2, []

    def killed(source, target):
        calls.append(source)
        if len(calls) == 3:
            target.write_bytes(source.read_bytes()[:-1])
            os.kill(os.getpid(), signal.SIGKILL)
        return copy(source, target)

    def work():
        shutil.copy2 = killed
        stage(packed, tmp_path / "node")

    assert in_a_fork(work) == -signal.SIGKILL
    (folder,) = (tmp_path / "node").glob("xfd*")
    assert list(folder.glob(".0*.tmp"))
    assert stage(packed, tmp_path / "node") == folder
    assert content(folder) == content(packed)
    assert {path.name for path in folder.glob(".*")} == {MARK}


def test_files_of_others_are_neither_changed_nor_taken_for_the_copy(packed, tmp_path):
    folder = stage(packed, tmp_path / "node")
    (folder / "00007.tar.gz").write_bytes(b"the user's")
    with pytest.raises(UserError, match=r"00007\.tar\.gz was not made by this command"):
        stage(packed, tmp_path / "node")
    assert (folder / "00007.tar.gz").read_bytes() == b"the user's"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_two_users_of_a_node_have_a_copy_each(packed):
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        root = Path(temporary)
        root.chmod(0o1777)
        pack = shutil.copytree(packed, root / "pack")

        def work(user):
            os.setgid(user)
            os.setuid(user)
            assert content(stage(pack, root / "disk" / "reid")) == content(pack)

        for user in (1001, 1002):
            assert in_a_fork(partial(work, user)) == 0
        owners = {path.stat().st_uid for path in (root / "disk" / "reid").glob("xfd*")}
        assert owners == {1001, 1002}


def test_a_new_pack_gets_a_folder_of_its_own(tree, packed, tmp_path):
    old = stage(packed, tmp_path / "node")
    pack.pack(index.build(tree).splits["train"][:2], tree, packed, largest_shard=4000)
    assert stage(packed, tmp_path / "node") != old


def test_the_folder_may_name_a_variable(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "NODE_DISK", str(tmp_path / "disk"))
    runtime = Runtime(pack=packed, stage_to="$NODE_DISK/reid")
    assert pack_for(runtime).parent == tmp_path / "disk" / "reid"
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE"):
        pack_for(Runtime(pack=packed, stage_to="$NOT_SET_ANYWHERE"))
    assert pack_for(Runtime(pack=packed)) == packed
    assert pack_for(Runtime()) is None

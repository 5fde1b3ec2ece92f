import multiprocessing
import os
from types import SimpleNamespace

import pytest

from reid.config import Runtime
from reid.data import index, pack, staging
from reid.data.packed import Packed
from reid.errors import UserError
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


def test_a_copy_is_the_pack(tree, packed, tmp_path):
    folder = staging.stage(packed, tmp_path / "node")
    assert content(folder) == content(packed)
    Packed(folder, index.build(tree).splits["train"])
    pack.verify(folder)


def test_a_second_job_copies_nothing(packed, tmp_path):
    folder = staging.stage(packed, tmp_path / "node")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("0*")}
    assert staging.stage(packed, tmp_path / "node") == folder
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_jobs_that_start_together_copy_once(packed, tmp_path, monkeypatch):
    log = tmp_path / "log"
    copy = staging._copy

    def logged(source, target):
        with log.open("a") as opened:
            opened.write(f"{source.name}\n")
        return copy(source, target)

    monkeypatch.setattr(staging, "_copy", logged)
    context = multiprocessing.get_context("fork")
    jobs = [
        context.Process(target=staging.stage, args=(packed, tmp_path / "node")) for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    copied = log.read_text().split()
    assert sorted(copied) == sorted(content(packed))


def test_what_a_killed_job_left_is_finished(packed, tmp_path, monkeypatch):
    copy, calls = staging._copy, []

    def dies(source, target):
        calls.append(source)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return copy(source, target)

    monkeypatch.setattr(staging, "_copy", dies)
    with pytest.raises(KeyboardInterrupt):
        staging.stage(packed, tmp_path / "node")
    monkeypatch.undo()
    folder = staging.stage(packed, tmp_path / "node")
    assert content(folder) == content(packed)


def test_no_room_is_said_before_anything_is_copied(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"GB free.*runtime\.stage_to"):
        staging.stage(packed, tmp_path / "node")


def test_a_damaged_pack_is_not_copied(packed, tmp_path):
    shard = packed / "00001.shard"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"00001\.shard is not what was packed"):
        staging.stage(packed, tmp_path / "node")
    assert not list((tmp_path / "node").glob("*/00001.shard"))


def test_a_new_pack_gets_a_folder_of_its_own(tree, packed, tmp_path):
    old = staging.stage(packed, tmp_path / "node")
    pack.pack(index.build(tree).splits["train"][:2], tree, packed, largest_shard=4000)
    assert staging.stage(packed, tmp_path / "node") != old


def test_the_folder_may_name_a_variable(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "NODE_DISK", str(tmp_path / "disk"))
    runtime = Runtime(pack=packed, stage_to="$NODE_DISK/reid")
    assert staging.pack_for(runtime).parent == tmp_path / "disk" / "reid"
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE"):
        staging.pack_for(Runtime(pack=packed, stage_to="$NOT_SET_ANYWHERE"))
    assert staging.pack_for(Runtime(pack=packed)) == packed
    assert staging.pack_for(Runtime()) is None

"""FAULTS 3, 4, 5: checkpoints that are damaged, half-written, or beside files of the user."""

import errno
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.errors import Unresumable
from reid.train.checkpoint import MARK, Checkpoints, Position
from tests.runs import STAGE2, Lab, remains
from tests.train.conftest import at_call, checkpoints_of, kill_at


def make(folder: Path, *, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep=keep)


def save(checkpoints: Checkpoints, epoch: int, step: int = 0) -> None:
    state = {"weight": torch.full((3,), float(epoch)), "step": step}
    checkpoints.save(Position(epoch, step), state)
    checkpoints.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_and_the_last_is_restored(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        save(make(tmp_path), epoch, step=epoch)
    assert names(tmp_path) == ["00003-0000003.pt", "00004-0000004.pt"]
    restored = make(tmp_path).restore()
    assert restored is not None
    position, state = restored
    assert position == Position(4, 4)
    assert state["weight"].tolist() == [4.0] * 3
    # Going on from an older one leaves none that is ahead of it.
    save(make(tmp_path), 3, step=5)
    assert names(tmp_path) == ["00003-0000003.pt", "00003-0000005.pt"]
    # An ordinary tool opens it.
    whole = torch.load(tmp_path / "00003-0000005.pt", weights_only=True)
    assert (whole["epoch"], whole["step"]) == (3, 5)


@given(data=st.data())
@settings(max_examples=200)
def test_every_damage_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save(make(folder), 1)
    whole = folder / "00001-0000000.pt"
    content = bytearray(whole.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        content = content[:place]
    (folder / "00002-0000000.pt").write_bytes(content)
    restored = make(folder).restore()
    assert restored is not None
    assert restored[0] == Position(1, 0)
    whole.unlink()
    with pytest.raises(Unresumable, match=r"all 1 checkpoints in .* are damaged"):
        make(folder).restore()


NAMES = st.from_regex(r"\A\.?[a-z0-9]{1,8}(-[0-9]{1,8})?\.(pt|json|tmp|pth)\Z") | st.from_regex(
    r"\A[0-9]{5}-[0-9]{7}\.(pt|json|pt\.bak)\Z"
)


@given(foreign=st.dictionaries(NAMES, st.binary(max_size=8), min_size=1, max_size=6))
@settings(max_examples=40)
def test_files_of_others_are_never_touched(
    tmp_path_factory: pytest.TempPathFactory, foreign: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("foreign")
    for epoch in (1, 2, 3):
        foreign.pop(f"{epoch:05}-0000000.pt", None)
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    (folder / "99999-9999999.pt").mkdir(exist_ok=True)
    checkpoints = make(folder, keep=1)
    for epoch in (1, 3, 2):
        save(checkpoints, epoch)
    restored = make(folder).restore()
    assert restored is not None
    assert restored[0] == Position(2, 0)
    checkpoints.clear()
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert left == foreign


@pytest.mark.parametrize("moment", ["before rename", "before trimming"])
def test_fault_03_killed_while_a_checkpoint_is_written(
    lab: Lab, expected: dict[str, Any], moment: str
) -> None:
    before_rename = kill_at(Path, "chmod", 4)
    fault = before_rename if moment == "before rename" else kill_at(Checkpoints, "_trim", 2)
    assert lab.finish(*STAGE2, before=fault) == -signal.SIGKILL
    assert lab.finish(*STAGE2) == 0, lab.log()
    resumed = 2 if moment == "before trimming" else 1
    assert f"resuming before epoch {resumed + 1}, step 1" in lab.log()
    assert names(checkpoints_of(lab)) == ["00002-0000000.pt", "00003-0000000.pt"]
    assert remains(lab) == expected


def test_fault_04_damaged_checkpoints_fall_back_and_never_start_from_zero(
    two_epochs: Lab, expected: dict[str, Any]
) -> None:
    lab = two_epochs
    older, newest = sorted(checkpoints_of(lab).glob("*.pt"))
    content = older.read_bytes()
    older.write_bytes(content[:1000])
    newest.write_bytes(newest.read_bytes()[:-1000] + b"\0" * (1000 - len(MARK)) + MARK)
    assert lab.finish(*STAGE2) == 1
    assert "all 2 checkpoints" in lab.log()
    words = "reid train stage2 --config config.yaml --training small --seed 1 --restart"
    assert f"start as you did, or {words}\n" in lab.log()
    assert older.exists()
    older.write_bytes(content)
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert f"checkpoint {newest.stem} is damaged" in lab.log()
    assert "resuming before epoch 2, step 1" in lab.log()
    assert remains(lab) == expected
    assert lab.finish(*STAGE2, "--restart") == 0, lab.log()
    assert remains(lab) == expected


def test_fault_05_disk_full_keeps_the_checkpoint_before(lab: Lab, expected: dict[str, Any]) -> None:
    def fill_disk(original: Any, path: Path, content: bytes) -> None:
        original(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    fault = at_call(Path, "write_bytes", 2, fill_disk)
    assert lab.finish(*STAGE2, before=fault) == 1
    assert "checkpoints/stage2/00002-0000000.pt: No space left on device: free space" in lab.log()
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert "resuming before epoch 2, step 1" in lab.log()
    assert remains(lab) == expected

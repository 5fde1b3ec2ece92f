"""FAULTS 2, 9, 10, 12: signals, time limits, killed loading processes, numbers out of range."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import reid.train.stage2
from reid.files import RECORD, read_json_lines
from tests.runs import STAGE2, Lab, remains, slow_steps, wait, wait_for
from tests.train.conftest import STEPS, at_call, checkpoints_of


def stop(lab: Lab, pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Signal the trainer and its loading processes in the middle of an epoch, as Slurm does."""
    wait_for(lambda: bool(lab.steps()))
    os.killpg(pid, number)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_02_a_signal_to_the_group_saves_that_very_step(
    lab: Lab, expected: dict[str, Any], workers: int, number: signal.Signals
) -> None:
    lab.configure(workers=workers)
    pid = lab.start(*STAGE2, before=slow_steps)
    stop(lab, pid, number)
    asked = time.monotonic()
    if number == signal.SIGTERM:
        time.sleep(0.01)
        os.killpg(pid, number)  # a second one changes nothing
    assert wait(pid) == 75, lab.log()
    assert time.monotonic() - asked < 10
    assert not (lab.run / "stage2.safetensors").exists()
    assert f"received {number.name}. Run the same command again to resume" in lab.log()
    step = len(lab.steps())
    names = [path.stem for path in checkpoints_of(lab).glob("*.pt")]
    assert max(names) == f"{step // STEPS:05}-{step % STEPS:07}", "no step is lost"
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert "resuming before epoch" in lab.log()
    assert remains(lab) == expected
    events = [record["event"] for record in read_json_lines(lab.work() / "attempts.jsonl", RECORD)]
    assert events[-4:] == ["start", "stopped", "start", "done"]


def test_a_second_ctrl_c_stops_at_once(lab: Lab) -> None:
    def stuck() -> None:
        torch.optim.Adam.step = lambda *_, **__: time.sleep(60)  # type: ignore[method-assign]

    pid = lab.start(*STAGE2, before=stuck)
    wait_for(lambda: (lab.work() / "stage2.jsonl").exists())
    time.sleep(0.5)
    os.killpg(pid, signal.SIGINT)
    wait_for(lambda: "press Ctrl-C again" in lab.log())
    os.killpg(pid, signal.SIGINT)
    assert wait(pid) == 130, lab.log()


def test_a_signal_at_the_last_step_leaves_a_finished_run(
    lab: Lab, expected: dict[str, Any]
) -> None:
    def stop_and_step(step: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    fault = at_call(torch.optim.Adam, "step", 3 * STEPS, stop_and_step)
    assert lab.finish(*STAGE2, before=fault) == 75
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert remains(lab) == expected


def test_a_full_disk_while_stopping_still_exits_75(lab: Lab) -> None:
    def fill_disk() -> None:
        slow_steps()

        def write_bytes(path: Path, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        Path.write_bytes = write_bytes  # type: ignore[method-assign]

    pid = lab.start(*STAGE2, before=fill_disk)
    stop(lab, pid)
    assert wait(pid) == 75, lab.log()
    assert "this step could not be saved ([Errno 28] No space left on device" in lab.log()


@pytest.mark.parametrize("delay", [0, 0.05, 0.2])
def test_fault_10_killed_loading_process_ends_the_run(lab: Lab, delay: float) -> None:
    pid = lab.start(*STAGE2, before=slow_steps)
    wait_for(lambda: bool(lab.steps()) and len(psutil.Process(pid).children()) >= 2)
    # At once, and later: torch reports the death in the midst of whatever the trainer is doing.
    time.sleep(delay)
    psutil.Process(pid).children()[0].kill()
    assert wait(pid) == 1, lab.log()
    assert "a data-loading process died" in lab.log()
    assert not (lab.run / "stage2.safetensors").exists()


def test_fault_12_time_limit_saves_before_it_is_reached(lab: Lab, expected: dict[str, Any]) -> None:
    began = time.monotonic()
    assert lab.finish(*STAGE2, "--time-limit", "0.03", before=slow_steps) == 75, lab.log()
    assert time.monotonic() - began < 10
    assert "the time limit of 2 s is near" in lab.log()
    assert lab.finish(*STAGE2) == 0
    assert "resuming before epoch" in lab.log()
    assert remains(lab) == expected


def test_fault_09_nan_stops_and_keeps_the_last_good_checkpoint(lab: Lab) -> None:
    def poison(loss: Any, *arguments: Any) -> Any:
        result = loss(*arguments)
        result.terms["triplet"] = result.terms["triplet"] * float("nan")
        return result

    fault = at_call(reid.train.stage2, "stage2_loss", 8, poison)
    assert lab.finish(*STAGE2, before=fault) == 1
    assert "the loss is nan (terms {'loss': nan" in lab.log()
    assert f"epoch {7 // STEPS + 1}, step {7 % STEPS + 1}, batch ['000" in lab.log()
    assert not (lab.run / "stage2.safetensors").exists()
    assert (checkpoints_of(lab) / "00001-0000000.pt").exists()


def test_fault_09_weights_that_the_last_step_ruins_are_not_saved(
    lab: Lab, expected: dict[str, Any]
) -> None:
    def poison(step: Any, optimizer: torch.optim.Adam, *arguments: Any) -> Any:
        result = step(optimizer, *arguments)
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].view(-1)[0] = float("inf")
        return result

    fault = at_call(torch.optim.Adam, "step", 3 * STEPS, poison)
    assert lab.finish(*STAGE2, before=fault) == 1
    assert "1 weights are not finite (visual." in lab.log()
    assert not (lab.run / "stage2.safetensors").exists()
    assert max(path.stem for path in checkpoints_of(lab).iterdir()) == "00002-0000000"
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert remains(lab) == expected

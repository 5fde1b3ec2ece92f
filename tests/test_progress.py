"""Progress reads well where it is printed: in place on a terminal, as lines in a file."""

import os
import sys

import pytest

from reid.progress import Progress, duration


@pytest.mark.parametrize(("every", "steps"), [(0, [1, 2, 3]), (1000, [3])])
def test_lines_in_a_log(capsys: pytest.CaptureFixture[str], every: float, steps: list[int]) -> None:
    progress = Progress("train", 3, "steps", every=every)
    for step in range(3):
        progress.advance(note=f"loss {step}")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"train: {n}/3 steps" for n in steps]
    assert lines[-1].endswith("left; loss 2")


def test_a_bar_in_place_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "60")
        progress = Progress("train", 2, "steps")
        progress.every = 0
        progress.advance()
        progress.advance()
        monkeypatch.undo()
        shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "##########.......... train: 1/2 steps" in shown
    assert shown.count("\n") == 1  # at the end
    assert max(len(part) for part in shown.split("\r")) <= len("\033[K") + 60


def test_resumed_work_does_not_count_as_speed() -> None:
    progress = Progress("train", 20, "steps", done=8, every=1000)
    progress.advance(2)
    assert progress.line(1.0) == "train: 10/20 steps, 2.0 steps/s, 0:01 gone, 0:05 left"
    assert (duration(61), duration(3723)) == ("1:01", "1:02:03")

"""FAULT 20: more memory only after an attempt that could not say why it ended."""

import json
from pathlib import Path

import pytest

from cluster.history import was_killed


@pytest.mark.parametrize(
    ("events", "killed"),
    [
        ([], False),
        (["stage2 start"], True),
        (["stage2 start", "stage2 stopped"], False),
        (["stage2 start", "stage2 failed"], False),
        (["stage2 start", "stage2 start"], True),
        (["stage1 start"], False),
        (["stage1 start", "stage1 done", "stage2 start"], True),
    ],
)
def test_was_killed(tmp_path: Path, events: list[str], killed: bool) -> None:
    ledger = tmp_path / "attempts.jsonl"
    pairs = (event.split() for event in events)
    lines = (json.dumps({"stage": stage, "event": event}) for stage, event in pairs)
    ledger.write_text("".join(f"{line}\n" for line in lines))
    assert was_killed(ledger, "stage2") is killed


def test_a_line_cut_off_is_no_line(tmp_path: Path) -> None:
    ledger = tmp_path / "attempts.jsonl"
    ledger.write_text('{"stage": "stage2", "event": "start"}\n{"stage": "sta')
    assert was_killed(ledger, "stage2")
    assert not was_killed(tmp_path / "none", "stage2")

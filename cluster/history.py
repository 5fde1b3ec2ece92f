"""What the trainer's ledger, `attempts.jsonl`, tells about earlier attempts."""

import json
from pathlib import Path


def was_killed(ledger: Path, stage: str) -> bool:
    """Whether the last attempt at a stage ended without a word: out of memory, or a lost node.

    Whoever is asked to stop, or fails, still writes so.
    """
    events = [line["event"] for line in lines(ledger) if line["stage"] == stage]
    return bool(events) and events[-1] == "start"


def lines(ledger: Path) -> list[dict[str, str]]:
    """Starts and ends in the order of time; none where nothing was started.

    A line that was cut off as its writer was killed is left out.
    """
    if not ledger.exists():
        return []
    records = []
    for line in ledger.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records

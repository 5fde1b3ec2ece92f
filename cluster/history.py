"""What the trainer's ledger, `attempts.jsonl`, tells about earlier attempts."""

from pathlib import Path

from reid.files import read_json_lines


def was_killed(ledger: Path, stage: str) -> bool:
    """Whether the last attempt at a stage ended without a word: out of memory, or a lost node.

    Whoever is asked to stop, or fails, still writes so.
    """
    events = [line["event"] for line in read_json_lines(ledger) if line["stage"] == stage]
    return bool(events) and events[-1] == "start"

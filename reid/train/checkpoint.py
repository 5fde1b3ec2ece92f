"""Checkpoints that are whole or not there (FAULTS 1-7).

A checkpoint is a file of tensors and a marker. The file is written under a temporary name,
synced and renamed; the marker, with the file's hash, follows only then. A reader trusts only
markers, checks the hash, and falls back to the one before.
"""

import hashlib
import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid.errors import Unresumable, UserError
from reid.files import replacing, write_json


@dataclass(frozen=True)
class Position:
    """The next step to run: `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Restored:
    """A checkpoint as read back."""

    position: Position
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one stage in one folder; written by a thread while training goes on."""

    def __init__(self, folder: Path, *, keep: int, facts: Mapping[str, Any]) -> None:
        """`facts`: what a run must share with the one that it resumes; JSON-able."""
        self.folder, self.keep = folder, keep
        # As they will be read back: JSON knows no tuples.
        self.facts = json.loads(json.dumps(facts))
        self._writer: threading.Thread | None = None
        self._failure: OSError | None = None

    def save(self, position: Position, state: Mapping[str, Any], *, complete: bool = False) -> None:
        """Start to write a checkpoint. `state` may change as soon as this returns.

        Raises UserError if writing this one or the one before failed; those before that stay.
        """
        self.wait()
        content = io.BytesIO()
        torch.save(dict(state), content)
        marker = {
            "epoch": position.epoch,
            "step": position.step,
            "complete": complete,
            "facts": self.facts,
        }
        self._writer = threading.Thread(
            target=self._write, args=(position, content.getbuffer(), marker)
        )
        self._writer.start()

    def wait(self) -> None:
        """Wait until the last `save` is on disk. Raises UserError if it failed."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise UserError(
                f"checkpoint in {self.folder} could not be written ({failure}): free space, then "
                "run the same command again; the checkpoints before it are intact"
            )

    def restore(self) -> Restored | None:
        """The newest checkpoint that is whole, or None if there never was one.

        Raises Unresumable when the run was made with other facts, or when all checkpoints are
        damaged: it never starts from zero where work was done. A finished run of other facts is
        no obstacle: nothing of it is left to resume.
        """
        self._sweep()
        markers = sorted(self.folder.glob("*.json"), reverse=True)
        for marker in markers:
            try:
                recorded = json.loads(marker.read_text(encoding="utf-8"))
                content = marker.with_suffix(".pt").read_bytes()
                if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
                    raise ValueError("its hash is wrong")
            except (OSError, ValueError, KeyError) as error:
                print(f"warning: checkpoint {marker.stem} is damaged ({error}); trying the one "
                      "before", flush=True)  # fmt: skip
                continue
            if recorded["facts"] != self.facts:
                if recorded["complete"]:
                    print(f"{self.folder}: a finished run of other settings; starting anew",
                          flush=True)  # fmt: skip
                    self.clear()
                    return None
                raise Unresumable(
                    f"{self.folder} holds an unfinished run of other settings: "
                    f"{difference(recorded['facts'], self.facts)}. Change them back to resume, "
                    "or throw its progress away: delete that folder and start as you did"
                )
            state = torch.load(io.BytesIO(content), weights_only=True)
            return Restored(Position(recorded["epoch"], recorded["step"]), state)
        if markers:
            raise Unresumable(
                f"all {len(markers)} checkpoints in {self.folder} are damaged: restore them from "
                "a backup, or begin again: delete that folder and start as you did"
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints."""
        for path in (*self.folder.glob("*.json"), *self.folder.glob("*.pt")):
            path.unlink(missing_ok=True)

    def _write(self, position: Position, content: memoryview, marker: dict[str, Any]) -> None:
        path = self.folder / f"{position.epoch:05}-{position.step:07}.pt"
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            write_json(path.with_suffix(".json"), {"sha256": digest, **marker})
            self._trim(path.with_suffix(".json"))
        except OSError as error:
            self._failure = error

    def _trim(self, newest: Path) -> None:
        """Keep the newest `keep`, and none that is ahead of the newest (of an older run)."""
        markers = sorted(self.folder.glob("*.json"))
        place = markers.index(newest)
        for old in markers[: max(0, place + 1 - self.keep)] + markers[place + 1 :]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed writer left: temporary files, and files without a marker."""
        for left in self.folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        for path in self.folder.glob("*.pt"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """What differs between two nested mappings, as `key: old -> new`, comma-separated."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found.append(difference(before, after, f"{prefix}{key}."))
        else:
            found.append(f"{prefix}{key}: {_brief(before)} -> {_brief(after)}")
    return ", ".join(found)


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

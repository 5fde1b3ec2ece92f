"""Checkpoints that are whole or absent (FAULTS 1-7).

A checkpoint is one file, `EEEEE-SSSSSSS.pt`, named by the next epoch and step: what `torch.save`
writes, its SHA-256 and a mark. It is written under a temporary name, synced and renamed, so a
killed process leaves the whole file or none. Files without the mark are never changed or deleted.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid.claim import remove_temporaries
from reid.errors import Unresumable
from reid.files import read_regular, replacing

MARK = b"xfd-reid checkpoint\n"
_NAME = re.compile(r"\d{5}-\d{7}\.pt")


@dataclass(frozen=True)
class Position:
    """The next step to run: `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


class Checkpoints:
    """The checkpoints of one stage in one folder, written by a thread while training goes on."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def save(self, position: Position, state: Mapping[str, Any]) -> None:
        """Start to write a checkpoint. `state` may change as soon as this returns.

        Raises OSError if the previous one could not be written; those before it are kept.
        """
        self.wait()
        whole = {"epoch": position.epoch, "step": position.step, "state": dict(state)}
        content = io.BytesIO()
        torch.save(whole, content)
        content.write(hashlib.sha256(content.getbuffer()).digest() + MARK)
        path = self.folder / f"{position.epoch:05}-{position.step:07}.pt"
        self._pending = self._writer.submit(self._write, path, content.getbuffer())

    def wait(self) -> None:
        """Wait until the last `save` is on disk. Raises OSError if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def restore(self) -> tuple[Position, dict[str, Any]] | None:
        """The newest checkpoint that is whole, or None if there is none.

        Raises Unresumable when there are checkpoints but all are damaged: training never starts
        again unasked.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                checkpoint = _read(path)
            except (OSError, ValueError) as error:
                damage = f"checkpoint {path.stem} is damaged ({error})"
                print(f"warning: {damage}; trying the one before", flush=True)
                continue
            return Position(checkpoint["epoch"], checkpoint["step"]), checkpoint["state"]
        if paths:
            raise Unresumable(
                f"all {len(paths)} checkpoints in {self.folder} are damaged: restore them from "
                "a backup, or begin again: delete that folder and start as you did"
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints."""
        for path in self._paths(_is_marked):
            path.unlink()

    def _paths(self, condition: Callable[[Path], bool] = Path.is_file) -> list[Path]:
        """Files named like checkpoints, oldest position first."""
        paths = [path for path in self.folder.glob("*.pt") if _NAME.fullmatch(path.name)]
        return sorted(path for path in paths if path.is_file() and condition(path))

    def _write(self, path: Path, content: memoryview) -> None:
        remove_temporaries(self.folder, lambda name: _NAME.fullmatch(name) is not None)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        self._trim(path)

    def _trim(self, newest: Path) -> None:
        """Keep the newest `keep`, and none ahead of the newest: that is of an abandoned run."""
        paths = self._paths(_is_marked)
        place = paths.index(newest)
        for path in paths[: max(0, place + 1 - self.keep)] + paths[place + 1 :]:
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises OSError, and ValueError when it is damaged."""
    content = read_regular(path)
    end = max(0, len(content) - hashlib.sha256().digest_size - len(MARK))
    if content[end:] != hashlib.sha256(content[:end]).digest() + MARK:
        whole = content.endswith(MARK)
        raise ValueError("its hash is wrong" if whole else "cut short, or of an earlier version")
    checkpoint: dict[str, Any] = torch.load(io.BytesIO(content[:end]), weights_only=True)
    return checkpoint


def _is_marked(path: Path) -> bool:
    """Whether a file ends with the mark, and so is a checkpoint of ours, maybe a damaged one."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - len(MARK)))
        return file.read() == MARK

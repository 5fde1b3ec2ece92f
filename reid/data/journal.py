"""What an index has found so far, so that a killed one goes on where it was."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np

from reid.data.layout import Tracklet
from reid.data.names import FrameNames, Run
from reid.data.scan import Found, Rejected, Unit

_PLAIN = tuple(field.name for field in fields(Tracklet) if field.name != "frames")


class Journal:
    """A file of lines, one a scanned unit: its name, a tab, and what was found as JSON.

    May be used from several threads.

    An entry counts while none of the folders that it came from was modified. A file that was
    written for something else than `key` is begun anew.
    """

    def __init__(self, path: Path, root: Path, key: str) -> None:
        self._root = root
        self._lock = Lock()
        self._lines = _read(path, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a" if self._lines else "w", encoding="utf-8")
        # Ends the line that a kill may have cut.
        self._file.write("\n" if self._lines else f"{key}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def scan(self, unit: Unit) -> Found:
        """What was found in a unit before, if that still holds, else what is found now."""
        name = json.dumps([unit.split, unit.folder])
        entry = _entry(self._lines.pop(name, None))
        if entry is not None and self._unchanged(entry["folders"]):
            return _found(entry)
        found = unit.scan()
        self._write(
            name,
            {
                "folders": found.folders,
                "rejected": [asdict(one) for one in found.rejected],
                "tracklets": [_plain(tracklet) for tracklet in found.tracklets],
            },
        )
        return found

    def remove(self) -> None:
        """Delete the file: all units are scanned."""
        self._path.unlink()

    def _unchanged(self, folders: list[list[Any]]) -> bool:
        try:
            return all(
                (self._root / folder).stat().st_mtime_ns == modified for folder, modified in folders
            )
        except OSError:
            return False

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        text = json.dumps(entry, separators=(",", ":"))
        with self._lock:
            self._file.write(f"{name}\t{text}\n")
            self._file.flush()


def _read(path: Path, key: str) -> dict[str, str]:
    """JSON by name of the unit; none of a file for another key. A line cut off does not count."""
    try:
        with path.open(encoding="utf-8") as opened:
            if opened.readline() != f"{key}\n":
                return {}
            parts = [line.partition("\t") for line in opened if line.endswith("}\n")]
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return {name: text for name, tab, text in parts if tab}


def _entry(line: str | None) -> Any:
    """What a line says; None when it was cut off just where it looks like an end."""
    try:
        return None if line is None else json.loads(line)
    except json.JSONDecodeError:
        return None


def _plain(tracklet: Tracklet) -> dict[str, Any]:
    runs = FrameNames.of(tracklet.frames).runs
    return {
        **{name: getattr(tracklet, name) for name in _PLAIN},
        "frames": [[run.head, run.width, run.suffix, run.numbers.tolist()] for run in runs],
    }


def _found(entry: dict[str, Any]) -> Found:
    return Found(
        tuple(
            Tracklet(
                **{name: plain[name] for name in _PLAIN},
                frames=FrameNames(
                    Run(head, width, suffix, np.array(numbers, np.int32))
                    for head, width, suffix, numbers in plain["frames"]
                ),
            )
            for plain in entry["tracklets"]
        ),
        tuple(Rejected(**one) for one in entry["rejected"]),
        tuple((folder, modified) for folder, modified in entry["folders"]),
    )

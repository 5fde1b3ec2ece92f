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
    """A file of JSON lines, one a scanned unit; may be used from several threads.

    An entry counts while none of the folders that it came from was modified. A file that was
    written for something else than `key` is begun anew.
    """

    def __init__(self, path: Path, root: Path, key: str) -> None:
        self._root = root
        self._lock = Lock()
        self._entries = _read(path, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a" if self._entries else "w", encoding="utf-8")
        if self._entries:
            self._file.write("\n")  # ends the line that a kill may have cut
        else:
            self._write({"key": key})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def scan(self, unit: Unit) -> Found:
        """What was found in a unit before, if that still holds, else what is found now."""
        entry = self._entries.get(f"{unit.split} {unit.folder}")
        if entry is not None and self._unchanged(entry["folders"]):
            return _found(entry)
        found = unit.scan()
        self._write(
            {
                "unit": f"{unit.split} {unit.folder}",
                "folders": found.folders,
                "rejected": [asdict(one) for one in found.rejected],
                "tracklets": [_plain(tracklet) for tracklet in found.tracklets],
            }
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

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self._lock:
            self._file.write(text)
            self._file.flush()


def _read(path: Path, key: str) -> dict[str, Any]:
    """Entries by unit; none of a file for another key. A line that was cut off does not count."""
    try:
        with path.open(encoding="utf-8") as opened:
            if opened.readline() != json.dumps({"key": key}, separators=(",", ":")) + "\n":
                return {}
            lines = [line for line in opened if line.endswith("}\n")]
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    made = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        made[entry["unit"]] = entry
    return made


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

"""What a node sees: run there by the doctor's test job, `python -m cluster.doctor.probe SPEC`."""

import os
import sys
from pathlib import Path
from socket import gethostname
from typing import Any

from reid.files import read_json, write_json


def look(spec: dict[str, Any]) -> dict[str, Any]:
    """Look at everything that `spec` names, from this node; what fails says why."""
    folder = Path(spec["folder"])
    return {
        "host": gethostname(),
        "python": sys.executable,
        "token": _attempt(lambda: (folder / "token").read_text(encoding="utf-8")),
        "rename": _attempt(lambda: _renames(folder)),
        "link": _attempt(lambda: _links(folder)),
        "dataset": {path: _attempt(lambda p=path: _entries(Path(p))) for path in spec["dataset"]},
        "weights": {path: _attempt(lambda p=path: _readable(Path(p))) for path in spec["weights"]},
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": _attempt(_gpus),
    }


def _attempt(what: Any) -> dict[str, Any]:
    try:
        return {"found": what()}
    except (OSError, ImportError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _renames(folder: Path) -> bool:
    """Whether a file that is renamed over another takes its place at once."""
    path, other = folder / "rename", folder / "rename.new"
    for text in ("one", "two", "three"):
        other.write_text(text, encoding="utf-8")
        other.replace(path)
        if path.read_text(encoding="utf-8") != text:
            return False
    return True


def _links(folder: Path) -> bool:
    """Whether a hard link is refused if its name is taken: the trainer's lease relies on it."""
    own, taken = folder / "link.own", folder / "link.taken"
    own.write_text("own", encoding="utf-8")
    taken.unlink(missing_ok=True)
    os.link(own, taken)
    try:
        os.link(own, taken)
    except FileExistsError:
        return True
    return False


def _entries(folder: Path) -> int:
    return sum(1 for _ in os.scandir(folder))


def _readable(file: Path) -> int:
    with file.open("rb") as opened:
        opened.read(1 << 20)
    return file.stat().st_size


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def main() -> None:
    """Read the specification, look, and replace the report with what was seen."""
    spec = read_json(Path(sys.argv[1]))
    write_json(Path(spec["folder"]) / "report.json", look(spec))


if __name__ == "__main__":
    main()

"""What a node of the cluster sees: `look` runs there, in the doctor's test job."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import gethostname
from typing import Any

from reid.files import read_json, write_json


def look(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Look at everything that `spec` names, from this node; what fails says why."""
    folder = Path(spec["folder"])

    def entries(path: Path) -> int:
        return sum(1 for _ in os.scandir(path))

    def readable(path: Path) -> int:
        with path.open("rb") as opened:
            return len(opened.read(1))

    return {
        "host": gethostname(),
        "token": _attempt(lambda: (folder / "token").read_text(encoding="utf-8")),
        "dataset": {path: _attempt(lambda p=path: entries(Path(p))) for path in spec["dataset"]},
        "weights": {path: _attempt(lambda p=path: readable(Path(p))) for path in spec["weights"]},
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": _attempt(_gpus),
    }


def _attempt(what: Callable[..., Any]) -> dict[str, Any]:
    try:
        return {"found": what()}
    except (OSError, ImportError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def judge(saw: Mapping[str, Any], *, token: str, gpus: int) -> Iterator[tuple[str, str, str]]:
    """Subject, finding and advice for everything that a node saw; no advice if it is well.

    `token`: what it should have read. `gpus`: how many torch must see there.
    """
    if saw["token"].get("found") == token:
        yield "node", "sees this folder as it is now", ""
    else:
        found = f"sees an old state of this folder ({saw['token']})"
        yield "node", found, "clone the repository on a file system that all nodes share"
    for kind in ("dataset", "weights"):
        for path, seen in saw[kind].items():
            if "error" in seen:
                found = f"the node cannot read {path}: {seen['error']}"
                yield kind, found, "keep it where the nodes see it, under the same path"
            else:
                yield kind, f"the node reads {path}", ""
    if not gpus:
        return
    names = saw["gpus"].get("found")
    if names is None:
        found = f"torch does not start on the node: {saw['gpus']['error']}"
        yield "GPU", found, "reinstall it for this cluster: the versions are in constraints.txt"
    elif len(names) < gpus:
        found = f"torch sees {len(names)} of {gpus} on the node "
        found += f"(CUDA_VISIBLE_DEVICES={saw['visible']})"
        advice = "its driver may be too old for this build of torch: `srun ... nvidia-smi` on the "
        yield "GPU", found, f"{advice}node prints its version"
    else:
        yield "GPU", f"torch sees {', '.join(names)}", ""


def main() -> None:
    """Read the specification, look, and write the report."""
    spec = read_json(Path(sys.argv[1]))
    write_json(Path(spec["folder"]) / "report.json", look(spec))


if __name__ == "__main__":
    main()

"""The doctor's test job: what a node of the cluster sees of all that a training needs."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from socket import gethostname

from cluster.doctor import Finding, verdict
from reid.files import read_json, write_json


def look(paths: Mapping[str, Sequence[str]], gpus: int) -> Iterator[Finding]:
    """Findings of this node: about `paths` by kind, and whether torch sees so many `gpus`."""
    yield Finding("ok", "node", f"{gethostname()} ran the test job and sees this folder")
    for kind, name in ((kind, name) for kind, names in paths.items() for name in names):
        error = _unreadable(Path(name))
        yield verdict(
            error is None,
            kind,
            f"the node reads {name}",
            f"the node cannot read {name}: {error}",
            "keep it where the nodes see it, under the same path",
        )
    if gpus:
        yield _gpus(gpus)


def _unreadable(path: Path) -> str | None:
    """Why a file or folder cannot be read."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            with path.open("rb") as file:
                file.read(1)
    except OSError as error:
        return error.strerror
    return None


def _gpus(wanted: int) -> Finding:
    try:
        import torch

        names = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    except (OSError, ImportError, RuntimeError) as error:
        found = f"torch does not start on the node: {type(error).__name__}: {error}"
        advice = "reinstall it for this cluster: the versions are in constraints.txt"
        return Finding("problem", "GPU", found, advice)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return verdict(
        len(names) >= wanted,
        "GPU",
        f"torch sees {', '.join(names)}",
        f"torch sees {len(names)} of {wanted} on the node (CUDA_VISIBLE_DEVICES={visible})",
        "its driver may be too old for this build of torch: `srun ... nvidia-smi` on the node "
        "prints its version",
    )


def main() -> None:
    """Read the specification in a folder, look, and write the report there."""
    folder = Path(sys.argv[1])
    write_json(folder / "report.json", list(look(**read_json(folder / "spec.json"))))


if __name__ == "__main__":
    main()

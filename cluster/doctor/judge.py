"""Verdicts on what the test job saw on its node."""

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.doctor.finding import Finding, ok, problem
from cluster.requests import Request


def node(report: Mapping[str, Any], *, token: str) -> Iterator[Finding]:
    """Verdicts on what a node saw. `token`: what it should have read."""
    if report["token"].get("found") == token:
        yield ok("node", "sees this folder as it is now")
    else:
        yield problem(
            "node",
            f"sees an old state of this folder ({report['token']})",
            "clone the repository on a file system that all nodes share",
        )
    for what, need in (("rename", "a renamed file replaces another at once"),
                       ("link", "hard links tell who came first")):  # fmt: skip
        if report[what].get("found") is True:
            yield ok("file system", need)
        else:
            yield problem(
                "file system",
                f"not given: {need} ({report[what].get('error', 'it does not')})",
                "keep the repository, or at least results/, on another file system",
            )
    for kind in ("dataset", "weights"):
        for path, seen in report[kind].items():
            if "error" in seen:
                yield problem(
                    kind,
                    f"the node cannot read {path}: {seen['error']}",
                    "keep it where the nodes see it, under the same path",
                )
            else:
                yield ok(kind, f"the node reads {path}")


def gpus(report: Mapping[str, Any], request: Request) -> Iterator[Finding]:
    """Whether torch sees on the node the GPUs that were asked for."""
    seen = report["gpus"].get("found")
    if seen is None:
        yield problem(
            "GPU", f"torch does not start on the node: {report['gpus']['error']}",
            "reinstall it for this cluster: the versions are in constraints.txt",
        )  # fmt: skip
    elif len(seen) < request.gpu_count:
        yield problem(
            "GPU",
            f"torch sees {len(seen)} of {request.gpu_count} on the node (CUDA_VISIBLE_DEVICES="
            f"{report['visible']})",
            "its driver may be too old for this build of torch: `srun ... nvidia-smi` on the node "
            "tells its version",
        )
    else:
        yield ok("GPU", f"torch sees {', '.join(seen)}")

"""Metrics: CPU time, memory and exactness against public evaluators and the physical floors.

    python -m benchmarks.metrics --queries 2500 --gallery 7500 --peers ../peers

Rows: `reid` (both AP rules and both camera rules); the floors `read` (one pass over the matrix)
and `argsort`; with --peers FOLDER: `fast-reid cython` (FOLDER/fast-reid, its rank_cylib built in
place) and `released` (FOLDER/VReID-XFD, its evaluate()). All take turns in one process; figures
are medians, ratios are medians over the rounds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import (
    alternate,
    describe_machine,
    identities_and_features,
    peer,
    ratio,
    typical,
)
from reid.retrieval.metrics import score
from reid.retrieval.retrieve import distances_of


def evaluators(
    folder: Path | None, distances: np.ndarray, labels: tuple[np.ndarray, ...]
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Calls that return (mAP, Rank-1) of the public evaluators found under `folder`."""
    found: dict[str, Callable[[], tuple[float, float]]] = {}
    library = Path("fast-reid/fastreid/evaluation/rank_cylib")
    built = sorted((folder / library).glob("rank_cy.*.so")) if folder else []
    cython = peer(folder, str(library / built[0].name)) if built else None
    if cython:

        def fast() -> tuple[float, float]:
            cmc, precisions, _ = cython.evaluate_cy(distances, *labels, 50)
            return float(np.mean(precisions)), float(np.asarray(cmc)[0])

        found["fast-reid cython"] = fast
    vars(np)["in1d"] = np.isin  # gone from NumPy 2.4; the released evaluator calls it
    released = peer(folder, "VReID-XFD/utils/test_video_reid.py")
    if released:
        matrix = torch.from_numpy(distances)

        def theirs() -> tuple[float, float]:
            cmc, mean = released.evaluate(matrix, *labels)
            return float(mean), float(cmc[0])

        found["released"] = theirs
    return found


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=2500)
    parser.add_argument("--gallery", type=int, default=7500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the public peers")
    arguments = parser.parse_args()
    print(describe_machine())
    size, queries = arguments.queries + arguments.gallery, arguments.queries
    identities, features = identities_and_features(size)
    distances = distances_of(features[:queries], features[queries:], None)
    cameras = np.random.default_rng(0).integers(0, 3, size)
    sides = (identities[:queries], identities[queries:], cameras[:queries], cameras[queries:])

    def ours() -> tuple[float, float]:
        metrics = score(distances, *sides).metrics()
        return metrics.mAP, metrics.rank(1)

    others = evaluators(arguments.peers, distances, sides)
    calls: dict[str, Callable[[], Any]] = {
        "reid": ours,
        "read": distances.sum,
        "argsort": lambda: np.argsort(distances, axis=1),
        **others,
    }
    costs = alternate(calls, arguments.rounds)
    print(f"\nQ = {queries}, G = {arguments.gallery}, {arguments.rounds} rounds")
    head = ("wall ms", "CPU ms", "MiB", "x wall", "x CPU")
    print(" " * 18 + "".join(f"{name:>9s}" for name in head) + "   (x: over reid)")
    for name, values in costs.items():
        own = typical(values)
        wall, cpu = (ratio(costs, name, "reid", clock) for clock in ("wall", "cpu"))
        print(
            f"{name:18s}{1e3 * own.wall:9.1f}{1e3 * own.cpu:9.1f}{own.mib:9.1f}"
            f"{wall:9.2f}{cpu:9.2f}"
        )
    mean, rank1 = ours()
    # They sort unstably: on these places no two entries are equal, and all must agree.
    order = np.argsort(distances, axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable").astype(np.float32)
    for what, matrix in (("as they are", distances), ("without ties", places)):
        for name, call in evaluators(arguments.peers, matrix, sides).items():
            their_mean, their_rank1 = call()
            print(
                f"distances {what}, against {name}: mAP {mean:.9f}, difference "
                f"{abs(mean - their_mean):.1e}; Rank-1 difference {abs(rank1 - their_rank1):.1e}"
            )


if __name__ == "__main__":
    main()

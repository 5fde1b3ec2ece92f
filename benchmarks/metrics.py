"""Metrics: CPU time, memory and exactness against fast-reid's Cython evaluator and a plain sort.

    python -m benchmarks.metrics --queries 2500 --gallery 7500 --peers ../peers

Rows: `reid` (junk removed, standard AP), `argsort`, and with --peers FOLDER `fast-reid cython`
(FOLDER/fast-reid, its rank_cylib built in place). All take turns in one process; figures are
medians, ratios are medians over the rounds.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.measure import (
    alternate,
    describe_machine,
    identities_and_features,
    peer,
    ratio,
    typical,
)
from reid.retrieval.distances import cosine
from reid.retrieval.metrics import evaluate


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=2500)
    parser.add_argument("--gallery", type=int, default=7500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the public peers")
    arguments = parser.parse_args()
    print(describe_machine())
    size, queries = arguments.queries + arguments.gallery, arguments.queries
    identities, features = identities_and_features(size)
    distances = cosine(features[:queries], features[queries:])
    cameras = np.random.default_rng(0).integers(0, 3, size)
    labels = (identities[:queries], identities[queries:], cameras[:queries], cameras[queries:])
    calls = {
        "reid": lambda: evaluate(distances, *labels),
        "argsort": lambda: np.argsort(distances, axis=1),
    }
    folder = Path("fast-reid/fastreid/evaluation/rank_cylib")
    built = sorted((arguments.peers / folder).glob("rank_cy.*.so")) if arguments.peers else []
    cython = peer(arguments.peers, str(folder / built[0].name)) if built else None
    if cython:
        calls["fast-reid cython"] = lambda: cython.evaluate_cy(distances, *labels, 50)
    costs = alternate(calls, arguments.rounds)
    print(f"\nQ = {queries}, G = {arguments.gallery}, {arguments.rounds} rounds")
    for name, values in costs.items():
        cost = typical(values)
        print(
            f"{name:18s}{1e3 * cost.cpu:9.1f} ms CPU{cost.mib:9.1f} MiB"
            f"{ratio(costs, name, 'reid', 'cpu'):9.2f} x reid"
        )
    if cython:
        _, precisions, _ = calls["fast-reid cython"]()
        gap = abs(float(np.mean(precisions)) - evaluate(distances, *labels).mAP)
        print(f"mAP differs from fast-reid's by {gap:.1e}")


if __name__ == "__main__":
    main()

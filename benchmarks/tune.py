"""Searching the default grid of re-ranking parameters, against one re-ranking.

python -m benchmarks.tune --size 5000 --rounds 3
"""

import argparse

import numpy as np

from benchmarks.measure import alternate, describe_machine, identities_and_features, typical
from reid.config import Tune
from reid.retrieval.rerank import k_reciprocal
from reid.retrieval.tune import search


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=5000, help="queries and gallery")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    identities, features = identities_and_features(arguments.size)
    cameras = np.random.default_rng(0).integers(0, 3, arguments.size)
    sides = slice(arguments.size // 4), slice(arguments.size // 4, None)
    query, gallery = (features[side] for side in sides)
    labels = [of[side] for of in (identities, cameras) for side in sides]
    grid = {
        "grid": lambda: search(query, gallery, *labels, grid=Tune()),
        "one": lambda: k_reciprocal(query, gallery, k1=28, k2=6, lambda_value=0.28),
    }
    costs = alternate(grid, arguments.rounds)
    print(f"{describe_machine()}\n{len(grid['grid']())} triples, N = {arguments.size}")
    for name, values in costs.items():
        print(f"{name:5s}{typical(values).wall:8.2f} s wall{typical(values).cpu:8.2f} s CPU")


if __name__ == "__main__":
    main()

"""Searching the grid of re-ranking parameters, against one re-ranking.

    python -m benchmarks.tune --size 5000 --rounds 5

The default grid of the configuration; D = 1280, a quarter queries, three cameras. Both take turns
in one process; the ratio is the median over the rounds.
"""

import argparse

import numpy as np

from benchmarks.measure import alternate, describe_machine, identities_and_features, ratio, typical
from reid.config import Tune
from reid.retrieval.grid import Grid, search
from reid.retrieval.rerank import k_reciprocal


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=5000, help="queries and gallery")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    identities, features = identities_and_features(arguments.size)
    cameras = np.random.default_rng(0).integers(0, 3, arguments.size)
    sides = slice(arguments.size // 4), slice(arguments.size // 4, None)
    query, gallery = (features[side] for side in sides)
    labels = [of[side] for of in (identities, cameras) for side in sides]
    options = Tune()
    grid = Grid(options.k1, options.k2, options.lambda_values)
    costs = alternate(
        {
            "grid": lambda: search(query, gallery, *labels, grid=grid),
            "one": lambda: k_reciprocal(query, gallery, k1=28, k2=6, lambda_value=0.28),
        },
        arguments.rounds,
    )
    print(describe_machine())
    print(f"{len(grid.triples())} triples, N = {arguments.size}, {arguments.rounds} rounds")
    for name, values in costs.items():
        print(f"{name:5s}{typical(values).wall:8.2f} s wall{typical(values).cpu:8.2f} s CPU")
    over = [ratio(costs, "grid", "one", clock) for clock in ("wall", "cpu")]
    print(f"grid / one: {over[0]:.1f} by wall, {over[1]:.1f} by CPU")


if __name__ == "__main__":
    main()

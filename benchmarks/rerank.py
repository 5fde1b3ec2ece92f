"""Re-ranking: time, memory and exactness against the matrix product and public implementations.

    python -m benchmarks.rerank --sizes 3000 6000 10000 --rounds 3 --peers ../peers

N = queries + gallery with a quarter queries, D = 1280, k1 = 28, k2 = 6, lambda = 0.28.
All calls take turns in one process; figures are medians, ratios are medians over the rounds.

Rows: `reid` (float32), `reid released` (float16 weights), `product` (blocks of all N x N); with
--peers FOLDER and checkouts there: `released` (FOLDER/VReID-XFD: Ashwat231/VReID-XFD) and
`fast-reid` (FOLDER/fast-reid: JDAI-CV/fast-reid, given its Euclidean blocks).
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
from reid.retrieval.distances import ROWS, blocks
from reid.retrieval.metrics import evaluate
from reid.retrieval.rerank import k_reciprocal

OPTIONS = {"k1": 28, "k2": 6, "lambda_value": 0.28}
RAW = {**OPTIONS, "normalize": False}
PEER_LIMIT = 10_000
"""Largest N at which the peers run: they hold 22-25 bytes for each of N x N entries."""


def product(features: np.ndarray) -> None:
    """Blocked products of all rows with all."""
    for rows in blocks(0, len(features), ROWS):
        np.matmul(features[rows], features.T)


def peers_at(
    folder: Path | None, query: np.ndarray, gallery: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Calls of the public implementations that are checked out under `folder`."""
    calls: dict[str, Callable[[], Any]] = {}
    pair = torch.from_numpy(query), torch.from_numpy(gallery)
    if released := peer(folder, "VReID-XFD/utils/reranking.py"):
        calls["released"] = lambda: released.re_ranking(*pair, 28, 6, 0.28)
    if fast := peer(folder, "fast-reid/fastreid/evaluation/rerank.py"):

        def call() -> Any:
            euclidean = [
                torch.cdist(a, b).numpy() for a, b in (pair, (pair[0],) * 2, (pair[1],) * 2)
            ]
            return fast.re_ranking(*euclidean, **OPTIONS)

        calls["fast-reid"] = call
    return calls


def report(size: int, rounds: int, folder: Path | None) -> None:
    """Measure one N and print its table."""
    identities, features = identities_and_features(size)
    query, gallery = features[: size // 4], features[size // 4 :]
    few = size <= PEER_LIMIT
    peers = peers_at(folder, query, gallery) if few else {}
    ours: dict[str, Callable[[], Any]] = {
        "reid": lambda: k_reciprocal(query, gallery, **OPTIONS),
        "reid released": lambda: k_reciprocal(query, gallery, **RAW, form="released"),
        "product": lambda: product(features),
    }
    k_reciprocal(query[:40], gallery[:80], **OPTIONS)  # compile
    costs = alternate({**ours, **peers}, rounds if few else 1, warm=size <= 3000)
    output = len(query) * len(gallery) * 4 / 2**20
    print(f"\nN = {size}, Q x G output {output:.0f} MiB")
    head = ("wall s", "CPU s", "MiB", "x wall", "x CPU")
    print(" " * 16 + "".join(f"{name:>9s}" for name in head) + "   (x: over reid)")
    for name, values in costs.items():
        cost = typical(values)
        wall, cpu = (ratio(costs, name, "reid", clock) for clock in ("wall", "cpu"))
        print(f"{name:16s}{cost.wall:9.2f}{cost.cpu:9.2f}{cost.mib:9.0f}{wall:9.2f}{cpu:9.2f}")
    for name, call in peers.items():
        form = "released" if name == "released" else "float32"
        theirs, mine = np.asarray(call()), k_reciprocal(query, gallery, **RAW, form=form)
        labels = identities[: len(query)], identities[len(query) :]
        maps = [evaluate(matrix, *labels).mAP for matrix in (mine, theirs)]
        gap = np.abs(theirs - mine)
        print(
            f"against {name}: mAP {maps[0]:.6f} and {maps[1]:.6f}, largest difference "
            f"{gap.max():.1e}, share above 1e-5 {np.mean(gap > 1e-5):.1e}"
        )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 6000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the public peers")
    arguments = parser.parse_args()
    print(describe_machine())
    for size in arguments.sizes:
        report(size, arguments.rounds, arguments.peers)


if __name__ == "__main__":
    main()

"""Re-ranking: time, memory and exactness against floors, a dense form, and public peers.

    python -m benchmarks.rerank --sizes 1000 3000 10000 --rounds 3 --peers ../peers

N = queries + gallery with a quarter queries, D = 1280, k1 = 28, k2 = 6, lambda = 0.28.
All calls take turns in one process; figures are medians, ratios are medians over the rounds.

Rows: `reid` (float32), `reid released` (float16 arithmetic), `reid top` (20 a query, no Q x G
output); the floors `half GEMM` (blocks of the upper triangle), `full GEMM` (all N x N) and
`+ topk` (full GEMM and torch.topk of 29); `dense` (this file: the same steps on (N, N) arrays);
with --peers FOLDER and checkouts there: `released` (FOLDER/VReID-XFD: Ashwat231/VReID-XFD) and
`fast-reid` (FOLDER/fast-reid: JDAI-CV/fast-reid, given its Euclidean blocks).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import (
    Cost,
    alternate,
    describe_machine,
    identities_and_features,
    peer,
    ratio,
    typical,
)
from reid.features.features import stack
from reid.retrieval.distances import TILE
from reid.retrieval.metrics import evaluate
from reid.retrieval.products import Products
from reid.retrieval.rerank import k_reciprocal, k_reciprocal_of_matrix
from reid.retrieval.threads import available_cores, one_thread_per_product, over_pairs

OPTIONS = {"k1": 28, "k2": 6, "lambda_value": 0.28}
DENSE_LIMIT = 10_000
"""Largest N at which the (N, N) implementations run: they hold 22-25 bytes an entry."""


def gemm(features: np.ndarray, *, half: bool, topk: bool = False) -> None:
    """Blocked products of all rows with all (or the upper triangle), on every core."""
    starts = range(0, len(features), TILE)
    threads = available_cores()
    products = Products(features)

    def product(a: int, b: int) -> None:
        sides = [slice(part * TILE, (part + 1) * TILE) for part in (a, b)]
        products(*sides)
        if not half and a < b:
            products(*reversed(sides))

    if topk:
        rows = torch.from_numpy(features)
        for start in starts:
            torch.topk(rows[start : start + TILE] @ rows.T, min(29, len(rows)))
        return
    with one_thread_per_product():
        over_pairs(product, len(starts), threads=threads)


def dense(features: np.ndarray, queries: int, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """The steps of MODEL 4.7 written on (N, N) arrays, one core outside the product."""
    norms = (features**2).sum(axis=1)
    distances = norms[:, None] + norms - 2 * features @ features.T
    distances /= distances.max(axis=1, keepdims=True)
    ranks = np.argsort(distances, axis=1)
    weights = np.zeros_like(distances)

    def mutual(i: int, k: int) -> np.ndarray:
        forward = ranks[i, : k + 1]
        return forward[(ranks[forward, : k + 1] == i).any(axis=1)]

    for i in range(len(features)):
        own = mutual(i, k1)
        expanded = [own]
        for c in own:
            other = mutual(c, round(k1 / 2))
            if np.isin(other, own).sum() > 2 / 3 * len(other):
                expanded.append(other)
        columns = np.unique(np.concatenate(expanded))
        raw = np.exp(-distances[i, columns])
        weights[i, columns] = raw / raw.sum()
    weights = np.stack([weights[ranks[i, :k2]].mean(axis=0) for i in range(len(features))])
    holders = [np.flatnonzero(weights[:, column]) for column in range(len(features))]
    out = np.empty((queries, len(features) - queries), np.float32)
    for q in range(queries):
        shared = np.zeros(len(features), np.float32)
        for column in np.flatnonzero(weights[q]):
            rows = holders[column]
            shared[rows] += np.minimum(weights[q, column], weights[rows, column])
        jaccard = 1 - shared / (2 - shared)
        out[q] = ((1 - lambda_value) * jaccard + lambda_value * distances[q])[queries:]
    return out


def peers_at(
    folder: Path | None, features: np.ndarray, queries: int
) -> dict[str, Callable[[], Any]]:
    """Calls of the public implementations that are checked out under `folder`."""
    found: dict[str, Callable[[], Any]] = {}
    query, gallery = features[:queries], features[queries:]
    released = peer(folder, "VReID-XFD/utils/reranking.py")
    if released:
        sides = torch.from_numpy(query), torch.from_numpy(gallery)
        found["released"] = lambda: released.re_ranking(*sides, 28, 6, 0.28)
    fast = peer(folder, "fast-reid/fastreid/evaluation/rerank.py")
    if fast:

        def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return torch.cdist(torch.from_numpy(a), torch.from_numpy(b)).numpy()

        def call() -> Any:
            blocks = euclidean(query, gallery), euclidean(query, query), euclidean(gallery, gallery)
            return fast.re_ranking(*blocks, k1=28, k2=6, lambda_value=0.28)

        found["fast-reid"] = call
    return found


def report(size: int, rounds: int, folder: Path | None) -> None:
    """Measure one N and print its table."""
    identities, features = identities_and_features(size)
    queries = size // 4
    query, gallery = features[:queries], features[queries:]
    raw = {**OPTIONS, "normalize": False}
    ours: dict[str, Callable[[], Any]] = {
        "reid": lambda: k_reciprocal(query, gallery, **OPTIONS),
        "reid released": lambda: k_reciprocal(query, gallery, **raw, form="released"),
        "reid top": lambda: k_reciprocal(query, gallery, **OPTIONS, top=20),
        "half GEMM": lambda: gemm(features, half=True),
        "full GEMM": lambda: gemm(features, half=False),
    }
    slow: dict[str, Callable[[], Any]] = {}
    if size <= 50_000:
        ours["+ topk"] = lambda: gemm(features, half=False, topk=True)
    if size <= DENSE_LIMIT:
        unit = stack(query, gallery, normalize=True)
        slow["dense"] = lambda: dense(unit, queries, 28, 6, 0.28)
        slow |= peers_at(folder, features, queries)
    k_reciprocal(query[:40], gallery[:80], **OPTIONS, top=5)  # compile
    many = size <= DENSE_LIMIT
    calls = {**ours, **slow}
    costs = alternate(calls, rounds if many else 1, warm=size <= 3000)
    output = queries * (size - queries) * 4 / 2**20
    print(f"\nN = {size}, Q x G output {output:.0f} MiB, {rounds if many else 1} rounds")
    head = ("wall s", "CPU s", "MiB", "x wall", "x CPU")
    print(" " * 16 + "".join(f"{name:>9s}" for name in head) + "   (x: over reid)")
    for name, values in costs.items():
        own: Cost = typical(values)
        wall, cpu = (ratio(costs, name, "reid", clock) for clock in ("wall", "cpu"))
        print(f"{name:16s}{own.wall:9.2f}{own.cpu:9.2f}{own.mib:9.0f}{wall:9.2f}{cpu:9.2f}")
    for floor in ("half GEMM", "full GEMM"):
        over = [ratio(costs, "reid", floor, clock) for clock in ("wall", "cpu")]
        print(f"reid / {floor}: {over[0]:.2f} by wall, {over[1]:.2f} by CPU")
    if many:
        exactness(identities, features, queries, slow)


def exactness(
    identities: np.ndarray,
    features: np.ndarray,
    queries: int,
    others: dict[str, Callable[[], Any]],
) -> None:
    """Compare the numbers with each other implementation that ran."""
    query, gallery = features[:queries], features[queries:]
    labels = identities[:queries], identities[queries:]
    raw = {**OPTIONS, "normalize": False}
    matching = {
        "dense": lambda: k_reciprocal(query, gallery, **OPTIONS),
        "released": lambda: k_reciprocal(query, gallery, **raw, form="released"),
        "fast-reid": lambda: k_reciprocal(query, gallery, **raw),
    }
    for name, call in others.items():
        theirs, own = np.asarray(call()), matching[name]()
        gap = np.abs(theirs - own)
        maps = [evaluate(matrix, *labels).mAP for matrix in (own, theirs)]
        print(
            f"against {name}: mAP {maps[0]:.6f} and {maps[1]:.6f}, largest difference "
            f"{gap.max():.1e}, share above 1e-5 {np.mean(gap > 1e-5):.1e}"
        )


def given_matrix(size: int, folder: Path | None) -> None:
    """Bit-equality with the released function on one given matrix."""
    released = peer(folder, "VReID-XFD/utils/reranking.py")
    if released is None:
        return
    _, features = identities_and_features(size)
    features *= np.linspace(0.5, 2, size, dtype=np.float32)[:, None]
    norms = (features**2).sum(axis=1)
    matrix = norms[:, None] + norms - 2 * features @ features.T
    queries = size // 4
    sides = torch.empty(queries, 1), torch.empty(size - queries, 1)
    for k1, k2, value in ((28, 6, 0.28), (20, 6, 0.3), (25, 1, 0.5), (50, 15, 0.3)):
        theirs = released.re_ranking(*sides, k1, k2, value, local_distmat=matrix, only_local=True)
        own = k_reciprocal_of_matrix(
            matrix, queries, k1=k1, k2=k2, lambda_value=value, form="released"
        )
        same = np.mean(own == theirs)
        print(f"given matrix, N = {size}, {(k1, k2, value)}: share of equal bits {same:.6f}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the public peers")
    arguments = parser.parse_args()
    print(describe_machine())
    given_matrix(1000, arguments.peers)
    for size in arguments.sizes:
        report(size, arguments.rounds, arguments.peers)


if __name__ == "__main__":
    main()

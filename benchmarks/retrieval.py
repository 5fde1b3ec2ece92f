"""Re-ranking, metrics and tuning: time, memory and exactness against public implementations.

    python -m benchmarks.retrieval rerank --sizes 3000 6000 10000 --rounds 3 --peers ../peers
    python -m benchmarks.retrieval metrics --sizes 10000 --rounds 5 --peers ../peers
    python -m benchmarks.retrieval tune --sizes 5000 --rounds 3

N = queries + gallery with a quarter queries, D = 1280, k1 = 28, k2 = 6, lambda = 0.28.

With --peers FOLDER and checkouts there: `released` (FOLDER/VReID-XFD: Ashwat231/VReID-XFD) and
`fast-reid` (FOLDER/fast-reid: JDAI-CV/fast-reid; of metrics its rank_cylib, built in place).
`reid released` is re-ranking with float16 weights, `product` the blocks of all N x N.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Call, command_line, compare
from reid.config import Tune
from reid.retrieval.distances import ROWS, blocks, cosine
from reid.retrieval.metrics import evaluate
from reid.retrieval.rerank import k_reciprocal
from reid.retrieval.tune import search

OPTIONS: dict[str, Any] = {"k1": 28, "k2": 6, "lambda_value": 0.28}
RAW = {**OPTIONS, "normalize": False}
PEER_LIMIT = 10_000
"""Largest N at which the peers run: they hold 22-25 bytes for each of N x N entries."""


def peer(folder: Path | None, pattern: str) -> Any | None:
    """A module of a public repository checked out under `folder`, or None when it is not there."""
    paths = sorted(folder.glob(pattern)) if folder else []
    if not folder or not paths:
        return None
    name = paths[0].name.split(".")[0]
    spec = importlib.util.spec_from_file_location(name, paths[0])
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(folder / Path(pattern).parts[0]))  # they import each other from there
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def identities_and_features(size: int, dimensions: int = 1280) -> tuple[np.ndarray, np.ndarray]:
    """(N,) identities of 20 tracklets each and (N, D) float32 features, noisy around a center."""
    rng = np.random.default_rng(0)
    count = max(1, size // 20)
    identities = rng.permutation(np.arange(size) % count)
    centers = rng.standard_normal((count, dimensions), dtype=np.float32)
    features = rng.standard_normal((size, dimensions), dtype=np.float32)
    for start in range(0, size, 4096):  # no second copy of everything
        features[start : start + 4096] += 0.28 * centers[identities[start : start + 4096]]
    return identities, features


def product(features: np.ndarray) -> None:
    """Blocked products of all rows with all, N x N never held."""
    for rows in blocks(0, len(features), ROWS):
        np.matmul(features[rows], features.T)


def rerank(size: int, rounds: int, folder: Path | None) -> None:
    """Costs at one N, and how far the distances and mAP of the peers are from ours."""
    identities, features = identities_and_features(size)
    query, gallery = features[: size // 4], features[size // 4 :]
    pair = torch.from_numpy(query), torch.from_numpy(gallery)
    few = size <= PEER_LIMIT
    peers: dict[str, Call] = {}
    if few and (released := peer(folder, "VReID-XFD/utils/reranking.py")):
        peers["released"] = lambda: released.re_ranking(*pair, 28, 6, 0.28)
    if few and (fast := peer(folder, "fast-reid/fastreid/evaluation/rerank.py")):
        sides = (pair, (pair[0],) * 2, (pair[1],) * 2)
        peers["fast-reid"] = lambda: fast.re_ranking(
            *(torch.cdist(a, b).numpy() for a, b in sides), **OPTIONS
        )
    calls: dict[str, Call] = {
        "reid": lambda: k_reciprocal(query, gallery, **OPTIONS),
        "reid released": lambda: k_reciprocal(query, gallery, **RAW, form="released"),
        "product": lambda: product(features),
    }
    k_reciprocal(query[:40], gallery[:80], **OPTIONS)  # compile
    print(f"\nQ x G output {len(query) * len(gallery) * 4 / 2**20:.0f} MiB")
    title = f"re-ranking, N = {size}"
    compare(title, {**calls, **peers}, rounds if few else 1, warm=size <= 3000, trim=True)
    for name, call in peers.items():
        form: Any = "released" if name == "released" else "float32"
        theirs: Any = np.asarray(call())
        mine = k_reciprocal(query, gallery, **RAW, form=form)
        labels = identities[: len(query)], identities[len(query) :]
        maps = [evaluate(matrix, *labels).mAP for matrix in (mine, theirs)]
        gap = np.abs(theirs - mine)
        print(
            f"against {name}: mAP {maps[0]:.6f} and {maps[1]:.6f}, largest difference "
            f"{gap.max():.1e}, share above 1e-5 {np.mean(gap > 1e-5):.1e}"
        )


def with_cameras(size: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Query and gallery features; identities of both, cameras of both."""
    identities, features = identities_and_features(size)
    cameras = np.random.default_rng(0).integers(0, 3, size)
    sides = slice(size // 4), slice(size // 4, None)
    labels = [values[side] for values in (identities, cameras) for side in sides]
    return features[sides[0]], features[sides[1]], labels


def metrics(size: int, rounds: int, folder: Path | None) -> None:
    """Junk removed, standard AP, against fast-reid's Cython evaluator and a plain sort."""
    query, gallery, labels = with_cameras(size)
    distances = cosine(query, gallery)
    calls: dict[str, Call] = {
        "reid": lambda: evaluate(distances, *labels),
        "argsort": lambda: np.argsort(distances, axis=1),
    }
    cython = peer(folder, "fast-reid/fastreid/evaluation/rank_cylib/rank_cy.*.so")
    if cython:
        calls["fast-reid cython"] = lambda: cython.evaluate_cy(distances, *labels, 50)
    compare(f"metrics, Q = {len(query)}, G = {len(gallery)}", calls, rounds)
    if cython:
        precisions = cython.evaluate_cy(distances, *labels, 50)[1]
        gap = abs(float(np.mean(precisions)) - evaluate(distances, *labels).mAP)
        print(f"mAP differs from fast-reid's by {gap:.1e}")


def tune(size: int, rounds: int, _: Path | None) -> None:
    """Searching the default grid of re-ranking parameters, against one re-ranking."""
    query, gallery, labels = with_cameras(size)
    calls: dict[str, Call] = {
        "one re-ranking": lambda: k_reciprocal(query, gallery, **OPTIONS),
        "default grid": lambda: search(query, gallery, *labels, grid=Tune()),
    }
    compare(f"tuning, N = {size}", calls, rounds)
    print(f"{len(search(query, gallery, *labels, grid=Tune()))} triples")


def main() -> None:
    """Print tables."""
    parser = command_line(__doc__, rounds=3)
    benchmarks = {
        "rerank": (rerank, [3000, 6000, 10_000]),
        "metrics": (metrics, [10_000]),
        "tune": (tune, [5000]),
    }
    parser.add_argument("what", choices=list(benchmarks))
    parser.add_argument("--sizes", type=int, nargs="+", help="N, queries and gallery")
    parser.add_argument("--peers", type=Path, help="folder with checkouts of the public peers")
    options = parser.parse_args()
    run, sizes = benchmarks[options.what]
    for size in options.sizes or sizes:
        run(size, options.rounds, options.peers)


if __name__ == "__main__":
    main()

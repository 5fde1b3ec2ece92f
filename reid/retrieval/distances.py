"""Squared Euclidean distances between feature rows, in tiles: the same bits whoever asks for one.

A product of matrices rounds by the shape of the whole and by where in it a row stands. So tiles
have fixed places, and copies of a row share its distances: they tie exactly, as they should.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.features.features import Floats, squared_norms, stack
from reid.retrieval.products import Products
from reid.retrieval.scan import to_distances
from reid.retrieval.threads import cores, one_thread_per_product, over_rows

TILE = 256
"""Rows of a tile: 256 KiB, which stays in the cache of a core. Of those on the diagonal half is
computed in vain: larger ones cost more than they gain below some 10,000 rows."""

KEY = 16
"""Numbers of a row, about, by which candidates for copies are found."""

STREAM = 8 * 2**20
"""Entries of a block of queries that is streamed: 32 MiB, or one tile's rows if they are more."""

Ints = NDArray[np.int64]
Places = tuple[int, Any, Any]
"""A tile, and what of an array of distances is what of the tile: slices, or arrays of places."""


class Distances:
    """Distances of the rows of features (N, D), by tiles of the distinct ones among them.

    origin: (N,) place of each row among the distinct ones, which are in order of appearance.
    norms: (N,) squared lengths.
    """

    def __init__(self, features: Floats, device: str | None = None) -> None:
        """device: see `Products`."""
        distinct, self.origin = _distinct(features)
        self.size = len(features)
        self.copies = len(distinct) < len(features)
        self.norms = squared_norms(features)
        self._norms = self.norms[distinct]
        self._products = Products(features[distinct] if self.copies else features, device)
        tops = range(0, len(distinct), TILE)
        self.parts = [slice(top, min(top + TILE, len(distinct))) for top in tops]

    @property
    def distinct(self) -> int:
        """How many rows are no copy of an earlier one."""
        return len(self._norms)

    def tile(self, a: int, b: int) -> Floats:
        """Distances from the distinct rows of part `a` to those of part `b`; use one thread."""
        rows, columns = self.parts[min(a, b)], self.parts[max(a, b)]
        block = self._products(rows, columns)
        to_distances(block, self._norms[rows], self._norms[columns], a == b)
        return block if a <= b else block.T

    def fill(self, out: Floats, rows: slice, columns: slice, *, threads: int) -> None:
        """Distances from some rows of the features to others, (rows, columns), in `out`."""
        tiles = [(a, b) for a in self._places(rows) for b in self._places(columns)]

        def part(start: int, stop: int) -> None:
            for (a, to_row, from_row), (b, to_column, from_column) in tiles[start:stop]:
                tile = self.tile(a, b)
                if self.copies:
                    out[np.ix_(to_row, to_column)] = tile[np.ix_(from_row, from_column)]
                else:
                    out[to_row, to_column] = tile[from_row, from_column]

        with one_thread_per_product():
            over_rows(part, len(tiles), threads=threads)

    def _places(self, rows: slice) -> list[Places]:
        """Which tiles rows of the features are in, and where."""
        if self.copies:
            tile, place = np.divmod(self.origin[rows], TILE)
            each = [(int(a), np.flatnonzero(tile == a)) for a in np.unique(tile)]
            return [(a, found, place[found]) for a, found in each]
        found: list[Places] = []
        for a in range(rows.start // TILE, -(-rows.stop // TILE)):
            first, last = max(rows.start, a * TILE), min(rows.stop, (a + 1) * TILE)
            inside = slice(first - a * TILE, last - a * TILE)
            found.append((a, slice(first - rows.start, last - rows.start), inside))
        return found


def cosine_blocks(
    query: Floats, gallery: Floats, *, device: str | None = None, threads: int | None = None
) -> Iterator[Floats]:
    """1 - cosine of query (Q, D) and gallery (G, D) features, in blocks (rows, G) of queries.

    Each block is overwritten by the next. A zero row is at distance 1 from all.
    Raises UserError on features that `stack` refuses.
    """
    features = stack(query, gallery, normalize=True)
    distances, workers = Distances(features, device), cores(threads)
    zero = ~np.any(query, axis=1), ~np.any(gallery, axis=1)
    columns = slice(len(query), len(features))
    for rows, block in row_blocks(len(query), len(gallery)):
        distances.fill(block, rows, columns, threads=workers)
        block /= 2  # |a - b|^2 = 2 - 2 cos for rows of length 1
        block[zero[0][rows]] = 1
        block[:, zero[1]] = 1
        yield block


def row_blocks(queries: int, positions: int) -> Iterator[tuple[slice, Floats]]:
    """Consecutive queries, whole tiles of them, and an array (rows, positions) for each, reused."""
    count = max(1, STREAM // positions // TILE) * TILE
    buffer = np.empty((min(queries, count), positions), np.float32)
    for first in range(0, queries, count):
        rows = slice(first, min(first + count, queries))
        yield rows, buffer[: rows.stop - first]


def _distinct(features: Floats) -> tuple[Ints, Ints]:
    """First appearances (U,) of the distinct rows, ascending, and each row's place among them."""
    first = np.arange(len(features))
    few = features[:, :: features.shape[1] // KEY + 1] + np.float32(0)  # -0.0 is 0.0
    keys = few.view(np.uint32) @ np.arange(1, 2 * few.shape[1], 2, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    equal = np.flatnonzero(np.diff(keys[order]) == 0)
    suspects = np.unique([order[equal], order[equal + 1]])
    if len(suspects):
        rows = features[suspects] + np.float32(0)
        as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, appearance, group = np.unique(as_bytes, return_index=True, return_inverse=True)
        first[suspects] = suspects[appearance[group]]
    distinct, origin = np.unique(first, return_inverse=True)
    return distinct, origin

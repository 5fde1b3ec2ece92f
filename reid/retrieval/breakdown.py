"""Where retrieval works: quality by altitude, distance, angle, capture point, session and height.

The paper reports one averaged score and says that it hides how performance changes with scale.
Every group here keeps all wrong gallery entries; what varies is the queries, or the positives.

- side `query`: the queries of the group (their capture conditions, their pixel height).
- side `gallery`: all queries, but only positives of the group; other positives are junk.
- `session change`: positives of the query's own session against those of the other one, with the
  rule that removes the same camera turned off; only between tracklets whose session is known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.data.layout import Tracklet
from reid.retrieval.metrics import score

HEIGHT_EDGES = (0, 16, 24, 32, 48, 64, 96, 128, 256)
"""Groups of the pixel height of the crop; the last is open."""

DRAWS = 1000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Side:
    """Tracklets of the queries or the gallery, and the median pixel height of their crops."""

    tracklets: Sequence[Tracklet]
    heights: NDArray[np.float32] | None

    @property
    def identities(self) -> NDArray[np.int64]:
        """(n,) identities."""
        return np.array([tracklet.identity for tracklet in self.tracklets], np.int64)

    @property
    def cameras(self) -> NDArray[np.int64]:
        """(n,) cameras."""
        return np.array([tracklet.camera for tracklet in self.tracklets], np.int64)

    @property
    def sessions(self) -> NDArray[np.int64]:
        """(n,) sessions, 0 where there is none."""
        return np.array([tracklet.session or 0 for tracklet in self.tracklets], np.int64)


def breakdown(distances: NDArray[Any], queries: Side, gallery: Side) -> list[dict[str, Any]]:
    """One JSON-able entry for each group of each attribute on either side, and session change.

    distances: (Q, G). Tracklets that lack an attribute are in none of its groups. Numbers are
    None where no query of the group has a positive.
    """
    people = queries.identities
    labels = (people, gallery.identities, queries.cameras, gallery.cameras)
    entries = []
    for attribute, value_of in _ATTRIBUTES.items():
        for side, own in (("query", queries), ("gallery", gallery)):
            values = [value_of(own, place) for place in range(len(own.tracklets))]
            for group in sorted({value for value in values if value is not None}):
                member = np.array([value == group for value in values])
                if side == "query":
                    of_queries = (people[member], labels[1], labels[2][member], labels[3])
                    found = score(distances[member], *of_queries).metrics()
                    asked = people[member]
                else:
                    found = score(distances, *labels, ignored=~member).metrics()
                    asked = people
                head = {"attribute": attribute, "side": side, "group": group}
                entries.append(head | quality(found.ap_per_query, found.first_rank, asked))
    return entries + _session_change(distances, queries, gallery)


def quality(
    precision: NDArray[np.float64], first_rank: NDArray[np.int64], people: NDArray[np.int64]
) -> dict[str, Any]:
    """mAP and Rank-1 of some queries with their 95 % intervals, and how many queries count."""
    found = first_rank > 0
    first = first_rank[found] == 1
    some = bool(found.any())
    return {
        "queries": int(found.sum()),
        "identities": len(np.unique(people[found])),
        "mAP": float(precision[found].mean()) if some else None,
        "rank1": float(first.mean()) if some else None,
        "mAP_interval": interval(precision[found], people[found]),
        "rank1_interval": interval(first, people[found]),
    }


def interval(
    values: ArrayLike, identities: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> list[float] | None:
    """Bootstrap [low, high] of a mean over queries, drawing whole identities with replacement.

    values: (V,) one number a query; identities: (V,) whose queries they are. Queries of one
    person are not independent, so the identity is what is drawn. None below two identities.
    """
    numbers = np.asarray(values, np.float64)
    people, place = np.unique(np.asarray(identities), return_inverse=True)
    if len(people) < 2:
        return None
    sums = np.bincount(place, weights=numbers)
    counts = np.bincount(place)
    generator = np.random.default_rng(seed)
    share = np.full(len(people), 1 / len(people))
    times = generator.multinomial(len(people), share, size=DRAWS)
    means = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _session_change(distances: NDArray[Any], queries: Side, gallery: Side) -> list[dict[str, Any]]:
    people, sessions = queries.identities, queries.sessions
    entries = []
    for group in ("same session", "other session"):
        parts = []
        for session in np.unique(sessions[sessions > 0]):
            part = sessions == session
            same = gallery.sessions == session
            other = (gallery.sessions > 0) & ~same
            wanted = same if group == "same session" else other
            labels = people[part], gallery.identities
            found = score(distances[part], *labels, ignored=~wanted).metrics()
            parts.append((found.ap_per_query, found.first_rank, people[part]))
        if parts and (gallery.sessions > 0).any():
            head = {"attribute": "session change", "side": "pair", "group": group}
            joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
            entries.append(head | quality(*joined))
    return entries


def _number(name: str) -> Callable[[Side, int], float | None]:
    def value(side: Side, place: int) -> float | None:
        number: float = getattr(side.tracklets[place], name)
        return None if math.isnan(number) else number

    return value


def _height(side: Side, place: int) -> int | None:
    """Lower edge of the group of the tracklet's pixel height."""
    if side.heights is None:
        return None
    return max(edge for edge in HEIGHT_EDGES if edge <= side.heights[place])


_ATTRIBUTES: dict[str, Callable[[Side, int], float | None]] = {
    "altitude": _number("altitude"),
    "distance": _number("distance"),
    "angle": _number("angle"),
    "capture point": lambda side, place: side.tracklets[place].capture_point,
    "session": lambda side, place: side.tracklets[place].session,
    "pixel height": _height,
}

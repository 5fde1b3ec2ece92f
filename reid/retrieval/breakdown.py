"""Quality by altitude, distance, angle, capture point, session and pixel height.

The paper reports one averaged score and says that it hides how performance changes with scale.
Every group keeps all wrong gallery entries; what varies is the queries, or the positives:

- side `query`: the queries of the group.
- side `gallery`: all queries, but only the positives of the group; other positives are junk.
- `session change`: positives of the query's own session against those of the other one, without
  the junk rule; only between tracklets whose session is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reid.data.tracklet import Tracklet
from reid.retrieval.metrics import Metrics, Ranking, summarize

ATTRIBUTES = ("altitude", "distance", "angle", "capture point", "session", "pixel height")

HEIGHT_EDGES = (0, 16, 24, 32, 48, 64, 96, 128, 256)
"""Groups of the pixel height of the crop; the last is open."""

DRAWS = 1000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Side:
    """Tracklets of the queries or the gallery, and the median pixel height of their crops."""

    tracklets: Sequence[Tracklet]
    heights: NDArray[np.float32] | None

    def values(self, name: str) -> NDArray[np.int64]:
        """(n,) integers: the `identity`, `camera` or `session`, 0 for none, of each tracklet."""
        return np.array([getattr(tracklet, name) or 0 for tracklet in self.tracklets], np.int64)


def breakdown(ranking: Ranking, queries: Side, gallery: Side) -> list[dict[str, Any]]:
    """One JSON-able entry for each group of each attribute on either side, and session change.

    Tracklets that lack an attribute are in none of its groups. Numbers are None where no query of
    the group has a positive.
    """
    people, everything = queries.values("identity"), summarize(ranking)
    entries = []
    for attribute in ATTRIBUTES:
        for name, side in (("query", queries), ("gallery", gallery)):
            groups = pd.Series(_values(side, attribute), dtype=object)
            for group, members in groups.groupby(groups):  # without missing values
                member = groups.index.isin(members.index)
                head = {"attribute": attribute, "side": name, "group": group}
                if name == "query":
                    entries.append(head | quality(everything, people, member))
                else:
                    metrics = summarize(ranking, ranking.junk | ~member[ranking.entry])
                    entries.append(head | quality(metrics, people))
    return [*entries, *_session_change(ranking, queries, gallery)]


def quality(
    metrics: Metrics, identities: NDArray[np.int64], member: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """mAP and Rank-1 with their 95 % intervals, over the queries of a group.

    identities: (Q,) of the queries; member: (Q,) which of them are in the group, None for all.
    """
    scored = metrics.first_rank > 0
    if member is not None:
        scored &= member
    precision, people = metrics.ap_per_query[scored], identities[scored]
    first = metrics.first_rank[scored] == 1
    return {
        "queries": len(people),
        "identities": len(np.unique(people)),
        "mAP": float(precision.mean()) if len(people) else None,
        "rank1": float(first.mean()) if len(people) else None,
        "mAP_interval": interval(precision, people),
        "rank1_interval": interval(first, people),
    }


def interval(values: ArrayLike, identities: ArrayLike) -> list[float] | None:
    """95 % bootstrap [low, high] of a mean over queries, drawing whole identities with replacement.

    values: (V,) one number for each query; identities: (V,) of the queries. Queries of one person
    are not independent, so identities are drawn. None with fewer than two identities.
    """
    numbers = np.asarray(values, np.float64)
    people, person = np.unique(np.asarray(identities), return_inverse=True)
    if len(people) < 2:
        return None
    sums = np.bincount(person, weights=numbers)
    counts = np.bincount(person)
    generator = np.random.default_rng(0)
    share = np.full(len(people), 1 / len(people))
    times = generator.multinomial(len(people), share, size=DRAWS)
    means = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(low), float(high)]


def _session_change(ranking: Ranking, queries: Side, gallery: Side) -> Iterator[dict[str, Any]]:
    sessions = queries.values("session"), gallery.values("session")
    if not (sessions[0].any() and sessions[1].any()):
        return
    asked, ranked = sessions[0][ranking.query], sessions[1][ranking.entry]
    known = (asked > 0) & (ranked > 0)
    for group, wanted in (("same session", asked == ranked), ("other session", asked != ranked)):
        head = {"attribute": "session change", "side": "pair", "group": group}
        yield head | quality(summarize(ranking, ~(known & wanted)), queries.values("identity"))


def _values(side: Side, attribute: str) -> list[float | None]:
    """The group of each tracklet, missing for None or NaN; of pixel heights, the lower edge."""
    if attribute != "pixel height":
        return [getattr(tracklet, attribute.replace(" ", "_")) for tracklet in side.tracklets]
    if side.heights is None:
        return []
    return [max(edge for edge in HEIGHT_EDGES if edge <= height) for height in side.heights]

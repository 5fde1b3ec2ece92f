"""Slow, obvious implementations, written from the papers. Correctness only."""

import numpy as np


def squared_distances(features):
    """(N, N) float64 squared Euclidean distances."""
    features = np.asarray(features, np.float64)
    out = np.zeros((len(features), len(features)))
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            out[i, j] = ((a - b) ** 2).sum()
    return out


def ranking(row):
    """Indices by ascending value, equal values by index."""
    return sorted(range(len(row)), key=lambda j: (row[j], j))


def k_reciprocal_of_distances(distances, queries, k1, k2, lambda_value, *, scaled=True):
    """Zhong et al. 2017, Eq. 3-12, on (N, N) squared distances, in float64."""
    size = len(distances)
    scaled_distances = np.array(distances, np.float64)
    if scaled:
        for i in range(size):
            largest = scaled_distances[i].max()
            if largest > 0:
                scaled_distances[i] /= largest
    ranks = [ranking(row) for row in distances]

    def nearest(i, k):  # N(i, k): itself counts as the first
        return ranks[i][: k + 1] if scaled else ranks[i][: min(k + 1, k1)]

    def reciprocal(i, k):  # R(i, k)
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    half = round(k1 / 2)
    weights = np.zeros((size, size))
    for i in range(size):
        own = reciprocal(i, k1)
        expanded = set(own)
        for c in own:
            other = reciprocal(c, half)
            if 3 * len(own & other) > 2 * len(other):
                expanded |= other
        for j in expanded:
            weights[i, j] = np.exp(-scaled_distances[i, j])
        if expanded:
            weights[i] /= weights[i].sum()
    if k2 > 1:
        weights = np.array([weights[ranks[i][:k2]].mean(axis=0) for i in range(size)])
    out = np.zeros((queries, size - queries))
    for q in range(queries):
        for g in range(queries, size):
            smaller = np.minimum(weights[q], weights[g]).sum()
            jaccard = 1 - smaller / (2 - smaller)
            mixed = (1 - lambda_value) * jaccard + lambda_value * scaled_distances[q, g]
            out[q, g - queries] = mixed
    return out


def k_reciprocal(query, gallery, k1, k2, lambda_value, *, normalize=True, scaled=True):
    """Re-ranked distances (Q, G) of features, in float64."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    if normalize:
        lengths = np.sqrt((features**2).sum(axis=1, keepdims=True))
        features = features / np.where(lengths > 0, lengths, 1)
    distances = squared_distances(features)
    return k_reciprocal_of_distances(distances, len(query), k1, k2, lambda_value, scaled=scaled)


def k_reciprocal_stored(distances, queries, k1, k2, lambda_value, *, storage):
    """As the released code computes: float32, weights and Jaccard kept as `storage`.

    Columns are divided by their largest value, then the matrix is transposed; every array of
    dtype `storage` rounds each operation to it.
    """
    distances = np.asarray(distances, np.float32)
    size = len(distances)
    scaled = np.ascontiguousarray((distances / distances.max(axis=0)).T)
    ranks = np.argsort(distances.T, axis=1, kind="stable")

    def reciprocal(i, k):
        return [j for j in ranks[i, : k + 1] if i in ranks[j, : k + 1]]

    weights = np.zeros((size, size), storage)
    for i in range(size):
        own = reciprocal(i, k1)
        expanded = set(own)
        for c in own:
            other = reciprocal(c, round(k1 / 2))
            if len(set(own) & set(other)) > 2 / 3 * len(other):
                expanded |= set(other)
        columns = sorted(expanded)
        raw = np.exp(-scaled[i, columns])
        weights[i, columns] = raw / raw.sum()
    if k2 > 1:
        mean = np.zeros_like(weights)
        for i in range(size):
            mean[i] = weights[ranks[i, :k2]].mean(axis=0)
        weights = mean
    jaccard = np.zeros((queries, size), storage)
    for q in range(queries):
        total = np.zeros(size, storage)
        for column in np.flatnonzero(weights[q]):
            total = total + np.minimum(weights[q, column], weights[:, column])
        jaccard[q] = 1 - total / (2 - total)
    mixed = jaccard * (1 - lambda_value) + scaled[:queries] * lambda_value
    return mixed[:, queries:]


def average_precision(order, good, *, trapezoid=False):
    """AP of one ranking (a list of gallery indices, junk already removed)."""
    hits, area = 0, 0.0
    for place, entry in enumerate(order):
        before = hits / place if place else 1.0
        if entry in good:
            hits += 1
            precision = hits / (place + 1)
            area += (before + precision) / 2 if trapezoid else precision
    return area / len(good) if good else float("nan")


def evaluate(distances, query_pids, gallery_pids, query_cams=None, gallery_cams=None, *, trapezoid):
    """(ap per query, first rank per query, 0 for none), by sorting."""
    precisions, firsts = [], []
    for q, row in enumerate(distances):
        same = {g for g, pid in enumerate(gallery_pids) if pid == query_pids[q]}
        junk = set()
        if query_cams is not None:
            junk = {g for g in same if gallery_cams[g] == query_cams[q]}
        good = same - junk
        order = [g for g in ranking(row) if g not in junk]
        precisions.append(average_precision(order, good, trapezoid=trapezoid))
        firsts.append(next((r for r, g in enumerate(order, 1) if g in good), 0))
    return np.array(precisions), np.array(firsts)

"""Slow, obvious implementations, written from the papers. For correctness only."""

import numpy as np


def squared_distances(features):
    """(N, N) float64 squared Euclidean distances."""
    features = np.asarray(features, np.float64)
    return np.array([[((a - b) ** 2).sum() for b in features] for a in features])


def ranking(row):
    """Indices by ascending value, equal values by index."""
    return sorted(range(len(row)), key=lambda j: (row[j], j))


def k_reciprocal(query, gallery, k1, k2, lambda_value, *, normalize=True, form="float32"):
    """Re-ranked distances (Q, G) of features: Zhong et al. 2017, Eq. 3-12.

    form: `unnormalized` does not divide distances by the largest of their row, and N(i, k1) has one
    neighbor fewer; `released` rounds weights and Jaccard distances to float16 after each operation.
    """
    features, queries = np.concatenate([query, gallery]).astype(np.float64), len(query)
    if normalize:
        lengths = np.sqrt((features**2).sum(axis=1, keepdims=True))
        features = features / np.where(lengths > 0, lengths, 1)
    distances, scaled = squared_distances(features), form != "unnormalized"
    storage = np.float16 if form == "released" else np.float64
    size = len(distances)
    precise = np.float64 if storage == np.float64 else np.float32
    scaled_distances = np.array(distances, precise)
    if scaled:
        largest = scaled_distances.max(axis=1, keepdims=True)
        scaled_distances /= np.where(largest > 0, largest, 1)
    ranks = [ranking(row) for row in distances]

    def nearest(i, k):  # N(i, k): itself counts as the first
        return ranks[i][: k + 1] if scaled else ranks[i][: min(k + 1, k1)]

    def reciprocal(i, k):  # R(i, k)
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    half = round(k1 / 2)
    weights = np.zeros((size, size), storage)
    for i in range(size):
        members = reciprocal(i, k1)
        expanded = set(members)
        for c in members:
            candidates = reciprocal(c, half)
            if 3 * len(members & candidates) > 2 * len(candidates):
                expanded |= candidates
        columns = sorted(expanded)
        values = np.exp(-scaled_distances[i, columns])
        weights[i, columns] = values / values.sum()
    if k2 > 1:
        weights = np.array([weights[ranks[i][:k2]].mean(axis=0) for i in range(size)], storage)
    out = np.zeros((queries, size - queries))
    for q in range(queries):
        shared = np.zeros(size - queries, storage)
        for column in np.flatnonzero(weights[q]):
            shared = shared + np.minimum(weights[q, column], weights[queries:, column])
        jaccard = 1 - shared / (2 - shared)
        out[q] = jaccard * (1 - lambda_value) + scaled_distances[q, queries:] * lambda_value
    return out


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
    """(AP of each query, its first rank, 0 for none), by sorting."""
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

"""Clusters of clients from similarities, by scikit-learn, on the host: n is small and the rounds are few."""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score


def silhouette_clusters(
    similarity: Float[np.ndarray, "n n"],
    present: Bool[np.ndarray, "n"],
    most: int,
    linkage: str,
    minimum: float,
) -> Int[np.ndarray, "n"]:
    """The clustering of the present clients with the largest silhouette; −1 for the absent.

    Args:
        similarity: At most 1; distances are 1 − similarity.
        present: Whom to cluster.
        most: Most clusters.
        linkage: As in scikit-learn.
        minimum: With a smaller best silhouette, all are one cluster.
    """
    members = np.flatnonzero(present)
    labels = np.full(len(present), -1)
    labels[members] = 0
    distance = np.maximum(1.0 - similarity[np.ix_(members, members)], 0.0)
    np.fill_diagonal(distance, 0.0)
    best = minimum
    # The silhouette is not defined for one cluster nor for as many as there are clients.
    for number in range(2, min(most, len(members) - 1) + 1):
        model = AgglomerativeClustering(n_clusters=number, metric="precomputed", linkage=linkage)
        found = model.fit_predict(distance)
        value = silhouette_score(distance, found, metric="precomputed")
        if value > best:
            best, labels[members] = value, found
    return labels


def join(
    labels: Int[np.ndarray, "n"], similarity: Float[np.ndarray, "n n"], present: Bool[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
    """Present clients without a label join the cluster they are most similar to on average."""
    labels = labels.copy()
    known = [label for label in np.unique(labels) if label >= 0]
    for client in np.flatnonzero(present & (labels < 0)):
        with_members = [label for label in known if ((labels == label) & present).any()]
        if with_members:
            mean = [similarity[client, (labels == label) & present].mean() for label in with_members]
            labels[client] = with_members[int(np.argmax(mean))]
    return labels


def bipartition(gram: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "n"]:
    """Two halves by complete linkage on the cosines."""
    norm = np.sqrt(np.maximum(gram.diagonal(), np.finfo(np.float64).tiny))
    distance = np.maximum(1.0 - gram / np.outer(norm, norm), 0.0)
    np.fill_diagonal(distance, 0.0)
    model = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="complete")
    return model.fit_predict(distance)

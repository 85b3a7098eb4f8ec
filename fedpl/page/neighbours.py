"""Where clients lie to each other: a map and groups by similarity, the strongest weights as edges."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from fedpl.deferred import deferred
from fedpl.records.plain import Matrix

if TYPE_CHECKING:
    from fedpl.server import clusters
else:
    clusters = deferred("fedpl.server.clusters")

GROUPS = 8  # colours that can be told apart
_CLEAR = 0.05  # silhouette of groups: distances of task vectors are nearly all alike
_EDGES = 400


class Edge(NamedTuple):
    """Client `taker` takes from `giver` with this weight."""

    giver: int
    taker: int
    weight: float


@dataclass(frozen=True)
class Neighbours:
    """What the last round's matrices say.

    Attributes:
        places: Of the clients on a map, each in [−1, 1].
        groups: Number of each client's group, from 0, larger groups first.
        edges: The strongest weights between two clients, the strongest first.
        threshold: Weights from here on are shown at first.
    """

    places: Float[np.ndarray, "clients 2"]
    groups: tuple[int, ...]
    edges: tuple[Edge, ...]
    threshold: float


def neighbours(similarity: Matrix, weights: Matrix) -> Neighbours:
    """Map, groups and edges.

    Args:
        similarity: sᵢₖ.
        weights: pᵢₖ: row i takes from column k.
    """
    similarity = np.nan_to_num(np.asarray(similarity, np.float64))
    similarity = (similarity + similarity.T) / 2
    edges = _edges(np.nan_to_num(np.asarray(weights, np.float64)))
    top = abs(edges[0].weight) if edges else 0.0
    return Neighbours(classical_scaling(np.maximum(1 - similarity, 0)), _groups(similarity), edges, top / 2)


def classical_scaling(distance: Matrix) -> Float[np.ndarray, "clients 2"]:
    """Two coordinates by classical multidimensional scaling, the longest side in [−1, 1]."""
    n = len(distance)
    places = np.zeros((n, 2))
    if n < 2:
        return places
    squared = np.square(distance)
    np.fill_diagonal(squared, 0)
    inner = -(squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()) / 2
    values, vectors = eigh(inner, subset_by_index=[n - 2, n - 1])
    for axis, own in enumerate((1, 0)):
        vector = vectors[:, own] * np.sqrt(max(values[own], 0))
        places[:, axis] = vector * (np.sign(vector[np.abs(vector).argmax()]) or 1)  # the same each time
    return places / (np.abs(places).max() or 1)


def _groups(similarity: Matrix) -> tuple[int, ...]:
    """By average linkage; as many as have the largest silhouette."""
    n = len(similarity)
    labels = clusters.silhouette_clusters(similarity, np.ones(n, bool), GROUPS, "average", _CLEAR)
    numbers, first, counts = np.unique(labels, return_index=True, return_counts=True)
    place = {numbers[i]: rank for rank, i in enumerate(np.lexsort((first, -counts)))}
    return tuple(place[label] for label in labels)


def _edges(weights: Matrix) -> tuple[Edge, ...]:
    """At most four for each client, and 400; zero is no edge."""
    beside = np.abs(weights)
    np.fill_diagonal(beside, 0)
    most = min(_EDGES, 4 * len(weights), beside.size)
    strongest = np.argsort(-beside, axis=None, kind="stable")[:most]
    found = zip(*np.unravel_index(strongest, beside.shape), strict=True)
    return tuple(Edge(int(k), int(i), float(weights[i, k])) for i, k in found if beside[i, k] > 0)

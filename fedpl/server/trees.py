"""Cuts of trees of clients into groups, by how little they leave of all pairs' values."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import linkage
from scipy.linalg import eigh
from scipy.spatial.distance import squareform

_RANKS = (2, 4, 8, 16, 32)  # eigenvalues that are kept; a few too many do no harm
_SHARE = 4  # clients to an eigenvalue, at least


def plain(values: Float[np.ndarray, "pairs"]) -> tuple[Int[np.ndarray, "n"], float]:
    """The best cut of average linkage's tree into several groups, and the sum of squares that it leaves.

    Args:
        values: Of all pairs, above −1 and below 2; one value is fitted inside groups and one between them.
    """
    tree = linkage(2.0 - values, "average")  # distances are positive
    between = _pairs(tree)
    return _best(tree, np.cumsum(between * (2.0 - tree[:, 2])), np.cumsum(between), values)


def spectral(values: Float[np.ndarray, "pairs"]) -> Iterator[tuple[Int[np.ndarray, "n"], float]]:
    """Best cuts of the trees of what leading eigenvalues hold of the values, measured by all of these.

    Of many clients, so many pairs are alike by chance that a tree of the values themselves begins with these.
    Leading eigenvectors add up what a group has in common, however little one pair shows of it.
    """
    matrix = squareform(values)
    n = len(matrix)
    ranks = [rank for rank in _RANKS if rank * _SHARE <= n]
    if not ranks:
        return
    found, vectors = eigh(matrix, subset_by_index=(n - ranks[-1], n - 1))
    rows = (vectors * np.sqrt(np.maximum(found, 0.0)))[:, ::-1]
    for rank in ranks:
        near = squareform(rows[:, :rank] @ rows[:, :rank].T, checks=False)
        tree = linkage(near.max() + 1e-9 - near, "average")
        inside = np.array([matrix[np.ix_(one, other)].sum() for one, other in _merges(tree)])
        yield _best(tree, np.cumsum(inside), np.cumsum(_pairs(tree)), values)


def cut(tree: Float[np.ndarray, "merges 4"], merges: int) -> Int[np.ndarray, "n"]:
    """Labels after the first merges of a tree: the smallest number of a client in the group."""
    labels = np.arange(len(tree) + 1)
    for one, other in islice(_merges(tree), merges):
        both = one + other
        labels[both] = min(both)
    return labels


def _merges(tree: Float[np.ndarray, "merges 4"]) -> Iterator[tuple[list[int], list[int]]]:
    """Both parts of every merge."""
    n = len(tree) + 1
    members = {i: [i] for i in range(n)}
    for step, (a, b) in enumerate(tree[:, :2].astype(int).tolist()):
        one, other = members.pop(a), members.pop(b)
        members[n + step] = one + other
        yield one, other


def _pairs(tree: Float[np.ndarray, "merges 4"]) -> Float[np.ndarray, "merges"]:
    """How many pairs every merge brings together."""
    sizes = np.concatenate([np.ones(len(tree) + 1), tree[:, 3]])
    return sizes[tree[:, 0].astype(int)] * sizes[tree[:, 1].astype(int)]


def _best(
    tree: Float[np.ndarray, "merges 4"],
    inside: Float[np.ndarray, "merges"],
    count: Float[np.ndarray, "merges"],
    values: Float[np.ndarray, "pairs"],
) -> tuple[Int[np.ndarray, "n"], float]:
    """The cut that leaves the least; sums and numbers of the values inside groups after every merge."""
    inside, count = inside[:-1], count[:-1]  # the last merge leaves one group
    total = values.sum() - inside
    left = float(np.square(values).sum()) - inside**2 / count - total**2 / (len(values) - count)
    best = int(np.argmin(left))
    return cut(tree, best + 1), float(left[best])

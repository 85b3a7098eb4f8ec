"""What clients of known groups have in common, and the weights that follow from it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fedpl.server.structure import PRIOR

_RIDGE = 0.05  # smallest eigenvalue of S + N


class Blocks(NamedTuple):
    """Cosines by pairs of groups.

    Attributes:
        group: Of each client.
        mean: Cosine inside every group and between every two, as a multiple of its scale.
        entries: Entries behind it, each with the square of its scale; a pair inside a group counts twice.
        inside: Groups of two clients or more, on the diagonal.
        noise: Variance of a cosine about its block's mean, where that is of several pairs; those of a single
            pair, of which a mean of its own would leave nothing, have one mean together.
    """

    group: Int[np.ndarray, "n"]
    mean: Float[np.ndarray, "groups groups"]
    entries: Float[np.ndarray, "groups groups"]
    inside: Bool[np.ndarray, "groups groups"]
    noise: float


def blocks(
    cosine: Float[np.ndarray, "n n"],
    labels: Int[np.ndarray, "n"],
    scale: Float[np.ndarray, "n n"] | None = None,
) -> Blocks:
    """Cosines of clients by pairs of groups: least squares of one multiple of `scale` in each block.

    Args:
        cosine: As measured.
        labels: Groups.
        scale: What a cosine is expected to be a multiple of, as clients show more or less of their tasks;
            None: 1.
    """
    names, group = np.unique(labels, return_inverse=True)
    member = np.eye(len(names))[group]
    off = (np.ones_like(cosine) if scale is None else scale) * (1.0 - np.eye(len(cosine)))
    count = member.T @ np.square(off) @ member
    mean = (member.T @ (off * cosine) @ member) / np.where(count > 0, count, 1.0)
    inside = np.eye(len(names), dtype=bool) & (count > 0)
    sizes = member.sum(0)
    single = np.outer(sizes, sizes) == 1 - np.eye(len(names))  # pairs of clients that are alone
    pairs = count[single].sum()
    fitted = np.where(single, (mean * count)[single].sum() / pairs if pairs else 0.0, mean)
    spread = np.square(cosine - fitted[np.ix_(group, group)] * off)
    np.fill_diagonal(spread, 0.0)
    means = inside.sum() + np.triu(~single, 1).sum() + single.any()
    noise = (spread.sum() / 2 + PRIOR**2) / (len(off) * (len(off) - 1) / 2 - means + 1)
    return Blocks(group, mean, count, inside, float(noise))


def signal(
    cosine: Float[np.ndarray, "n n"], labels: Int[np.ndarray, "n"], individual: float
) -> Float[np.ndarray, "n n"]:
    """Cosines without noise: the clients' true directions' inner products, as shares of the vectors' energy.

    Mean cosines inside every group and between every two are drawn towards the mean over groups as far as
    noise explains how they differ (James and Stein); the diagonal is what a client shares with its group,
    and a part of the rest.

    Args:
        cosine: As measured.
        labels: Groups.
        individual: Part of what no other client shows that is a client's own signal all the same; inner
            products of different clients cannot tell it from noise.
    """
    group, mean, count, inside, noise = blocks(cosine, labels)
    between = ~np.eye(len(mean), dtype=bool)
    for part, each in ((inside, 2), (between, 1)):  # a pair inside a group was counted twice
        if part.any():
            mean[part] = _shrunk(mean[part], count[part] / each, noise)
    fitted = mean[np.ix_(group, group)]
    own = np.where(inside.any(1), mean.diagonal(), np.maximum(mean.max(1, where=between, initial=0.0), 0.0))
    share = np.clip(own[group], 0.0, 1.0)
    np.fill_diagonal(fitted, share + individual * (1 - share))
    return fitted


def _shrunk(
    mean: Float[np.ndarray, "cells"], count: Float[np.ndarray, "cells"], noise: float
) -> Float[np.ndarray, "cells"]:
    """Means of so many entries each, towards their common mean."""
    centre = (mean * count).sum() / count.sum()
    error = noise / count
    true = max(float((np.square(mean - centre) - error).mean()), 0.0)
    return centre + true / (true + error) * (mean - centre)


def weights(signal: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """W = S (S + N)⁻¹, S + N with ones on its diagonal; no negative weights, rows that sum to one.

    A row without a positive weight is the client's own.
    """
    total = signal.copy()
    np.fill_diagonal(total, 1.0)
    smallest = np.linalg.eigvalsh(total)[0] if len(total) else 1.0
    if smallest < _RIDGE:  # what was fitted block by block is not a matrix of inner products
        total += (_RIDGE - smallest) * np.eye(len(total))
    found = np.maximum(np.linalg.solve(total, signal.T).T, 0.0)
    rows = found.sum(1, keepdims=True)
    return np.where(rows > 0, found / np.where(rows > 0, rows, 1.0), np.eye(len(total)))

"""Inner products, cosines and mixtures, pair by pair in float64."""

import math
from collections.abc import Sequence

import numpy as np


def _usable(x: np.ndarray, mask: np.ndarray | None) -> list[int]:
    return [i for i in range(len(x)) if (mask is None or mask[i]) and np.isfinite(x[i]).all()]


def gram(x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """⟨x_i, x_j⟩ of every pair of present and finite rows of x [n, d]; 0 elsewhere."""
    rows = np.asarray(x, np.float64)
    result = np.zeros((len(rows), len(rows)))
    usable = _usable(rows, mask)
    for i in usable:
        for j in usable:
            result[i, j] = np.sum(rows[i] * rows[j])
    return result


def gram_blocks(
    x: np.ndarray, boundaries: Sequence[tuple[int, int]], mask: np.ndarray | None = None
) -> np.ndarray:
    """`gram` of each column range; a row that is not finite somewhere in them is left out of all."""
    rows = np.asarray(x, np.float64)
    inside = np.concatenate([rows[:, a:b] for a, b in boundaries], axis=1)
    usable = np.zeros(len(rows), bool)
    usable[_usable(inside, mask)] = True
    return np.stack([gram(rows[:, a:b], usable) for a, b in boundaries])


def cosine(gram: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """G_ij / √(G_ii G_jj) of one [n, n] matrix; 0 for rows without a direction, diagonal included."""
    n = len(gram)
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            present = mask is None or (mask[i] and mask[j])
            if present and gram[i, i] > 0 and gram[j, j] > 0:
                value = gram[i, j] / math.sqrt(gram[i, i] * gram[j, j])
                result[i, j] = 1.0 if i == j else min(1.0, max(-1.0, value))
    return result


def cosine_blocks(
    x: np.ndarray, boundaries: Sequence[tuple[int, int]], mask: np.ndarray | None = None
) -> np.ndarray:
    """`cosine` of each column range."""
    return np.stack([cosine(g, mask) for g in gram_blocks(x, boundaries, mask)])


def mix(
    weights: np.ndarray, x: np.ndarray, mask: np.ndarray | None = None, base: np.ndarray | None = None
) -> np.ndarray:
    """(base_i +) Σ_k weights[i, k] x_k over present k with a weight that is not zero."""
    rows, p = np.asarray(x, np.float64), np.asarray(weights, np.float64)
    result = np.zeros((len(p), rows.shape[1])) if base is None else np.array(base, np.float64)
    for i in range(len(p)):
        used = np.flatnonzero((p[i] != 0) & (True if mask is None else np.asarray(mask)))
        result[i] += p[i, used] @ rows[used]
    return result


def mix_blocks(
    weights: np.ndarray,
    x: np.ndarray,
    boundaries: Sequence[tuple[int, int]],
    mask: np.ndarray | None = None,
    base: np.ndarray | None = None,
) -> np.ndarray:
    """`mix` with its own weights [blocks, m, n] for each column range; other columns as in base, or 0."""
    result = np.zeros((weights.shape[1], x.shape[1])) if base is None else np.array(base, np.float64)
    for p, (a, b) in zip(weights, boundaries, strict=True):
        result[:, a:b] = mix(p, x[:, a:b], mask, None if base is None else base[:, a:b])
    return result

"""What pairs share, from noisy measurements of all of them: an empirical Bayes estimate."""

import numpy as np
from jaxtyping import Float

_POINTS = 41  # of the grid on which agreements lie
_TURNS = 50  # of expectation and maximisation
_MOST = 4096  # pairs from which the distribution is learnt, evenly spread over all
# Beside the pairs one more counts that agrees in nothing, and one that agrees in anything.
_NOTHING, _ANYTHING = 1.0, 1.0


def shared(
    seen: Float[np.ndarray, "groups groups"], error: Float[np.ndarray, "groups groups"]
) -> Float[np.ndarray, "groups groups"]:
    """Expected squares of agreements r in [0, 1], given what was measured of them.

    How agreements are distributed is not assumed but learnt from all pairs, as the distribution on a grid
    that makes the measurements most likely (Robbins, 1956; Laird, JASA 1978, by expectation and
    maximisation). So a measurement of 0.8 ± 0.4 is much where pairs agree or do not, and chance where all
    agree a little.

    Args:
        seen: r + noise, for every two groups; the diagonal does not count.
        error: Standard deviation of the noise.
    """
    grid = np.linspace(0.0, 1.0, _POINTS)
    pairs = np.triu_indices(len(seen), 1)
    chosen = np.unique(np.linspace(0, max(len(pairs[0]) - 1, 0), _MOST).astype(int))
    some = tuple(part[chosen] for part in pairs) if len(pairs[0]) else pairs
    likely = np.stack([_likelihood(seen[some], error[some], r) for r in grid], -1)
    before = np.full(_POINTS, _ANYTHING / _POINTS)
    before[0] += _NOTHING
    mass = before / before.sum()
    for _ in range(_TURNS):
        after = likely * mass
        mass = before + (after / after.sum(-1, keepdims=True)).sum(0)
        mass /= mass.sum()
    top, bottom = np.zeros_like(seen), np.zeros_like(seen)
    for r, share in zip(grid, mass, strict=True):  # one point after the other: there may be many pairs
        part = share * _likelihood(seen, error, r)
        top, bottom = top + part * r * r, bottom + part
    return top / bottom


def _likelihood(
    seen: Float[np.ndarray, "*pairs"], error: Float[np.ndarray, "*pairs"], agreement: float
) -> Float[np.ndarray, "*pairs"]:
    """Of an agreement, relative to the likeliest one in [0, 1]."""
    best = np.clip(seen, 0.0, 1.0)
    return np.exp(-0.5 * (np.square(seen - agreement) - np.square(seen - best)) / np.square(error))

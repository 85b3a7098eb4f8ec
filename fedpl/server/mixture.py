"""What pairs agree on, from noisy measurements of all of them: empirical Bayes.

How agreements are distributed is not assumed but learnt from all pairs, as the distribution on a grid that
makes the measurements most likely (Robbins, 1956; Laird, JASA 1978, by expectation and maximisation). So a
measurement of 0.8 ± 0.4 is much where pairs agree or do not, and chance where all agree a little.
"""

import numpy as np
from jaxtyping import Bool, Float

_STEP = 0.025
_GRID = np.arange(-40, 41) * _STEP  # agreements; tasks may be opposed
_TURNS = 50  # of expectation and maximisation
_MOST = 4096  # pairs from which is learnt, evenly spread over all
# Beside the pairs one more counts that agrees in nothing, and one each that agrees, or is opposed, in
# anything.
_NOTHING, _ANYTHING = 1.0, 1.0


def learnt(
    seen: Float[np.ndarray, "n n"], error: Float[np.ndarray, "n n"], which: Bool[np.ndarray, "n n"]
) -> Float[np.ndarray, "agreements"]:
    """Probability of every agreement on the grid.

    Args:
        seen: Agreement + noise of every two clients; the diagonal does not count.
        error: Standard deviation of the noise.
        which: Pairs that count; there may be none.
    """
    pairs = np.nonzero(np.triu(which, 1))
    if len(pairs[0]) > _MOST:
        some = np.linspace(0, len(pairs[0]) - 1, _MOST).astype(int)
        pairs = pairs[0][some], pairs[1][some]
    likely = np.stack([_likelihood(seen[pairs], error[pairs], r) for r in _GRID], -1)
    before = np.full(len(_GRID), 2 * _ANYTHING / len(_GRID))
    before[_GRID == 0] += _NOTHING
    mass = before / before.sum()
    for _ in range(_TURNS):
        after = likely * mass
        mass = before + (after / after.sum(-1, keepdims=True)).sum(0)
        mass /= mass.sum()
    return mass


def expected(
    value: Float[np.ndarray, "agreements"],
    mass: Float[np.ndarray, "agreements"],
    seen: Float[np.ndarray, "*pairs"],
    error: Float[np.ndarray, "*pairs"],
) -> Float[np.ndarray, "*pairs"]:
    """Expectation of a function of the agreement, given what was measured.

    Args:
        value: The function on the grid.
        mass: From `learnt`.
        seen: Agreement + noise.
        error: Standard deviation of the noise.
    """
    top, bottom = np.zeros_like(seen), np.zeros_like(seen)
    for own, share, r in zip(value, mass, _GRID, strict=True):  # one by one: there may be many pairs
        part = share * _likelihood(seen, error, r)
        top, bottom = top + part * own, bottom + part
    return top / bottom


def mean(
    mass: Float[np.ndarray, "agreements"],
    seen: Float[np.ndarray, "*pairs"],
    error: Float[np.ndarray, "*pairs"],
) -> Float[np.ndarray, "*pairs"]:
    """Expected agreement. Arguments as of `expected`."""
    return expected(_GRID, mass, seen, error)


def energy(
    mass: Float[np.ndarray, "agreements"],
    seen: Float[np.ndarray, "*pairs"],
    error: Float[np.ndarray, "*pairs"],
) -> Float[np.ndarray, "*pairs"]:
    """Expected square of the agreement, with its sign: the part of the energy that is shared, or opposed.
    Arguments as of `expected`."""
    return expected(_GRID * np.abs(_GRID), mass, seen, error)


def chance(
    least: float,
    mass: Float[np.ndarray, "agreements"],
    seen: Float[np.ndarray, "*pairs"],
    error: Float[np.ndarray, "*pairs"],
) -> Float[np.ndarray, "*pairs"]:
    """Probability of an agreement of `least` or more. Other arguments as of `expected`."""
    return expected((least - 1e-9 <= _GRID).astype(float), mass, seen, error)


def _likelihood(
    seen: Float[np.ndarray, "*pairs"], error: Float[np.ndarray, "*pairs"], agreement: float
) -> Float[np.ndarray, "*pairs"]:
    """Of an agreement, relative to the likeliest one on the grid: at least one does not vanish."""
    best = np.round(np.clip(seen, -1.0, 1.0) / _STEP) * _STEP
    return np.exp(-0.5 * (np.square(seen - agreement) - np.square(seen - best)) / np.square(error))

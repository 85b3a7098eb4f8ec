"""Methods on the same clients: paired tests, intervals, ranks. Clients are the unit, seeds are averaged."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from fedpl.deferred import deferred

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = deferred("scipy.stats")

_EXACT = 12  # clients up to which all signs are gone through
_DRAWS = 9_999


def harm_probability(gains: Sequence[float]) -> float:
    """How probable so small a mean gain were if the signs of the clients' gains were chance, one-sided.

    A sign-flip test: exact for few clients, else on draws with a fixed seed, the observed signs among them.

    Args:
        gains: Of each client over local-only training; differences of the same fractions, so ties are exact
            up to rounding.
    """
    values = np.asarray(gains, np.float64)
    return float((_flipped(values) <= values.sum() + 1e-9).mean())


def difference_probability(differences: Sequence[float]) -> float:
    """The same of so large a mean difference either way, two-sided: with n clients never below 2 / 2ⁿ."""
    values = np.asarray(differences, np.float64)
    return float((np.abs(_flipped(values)) >= abs(values.sum()) - 1e-9).mean())


def _flipped(values: Float[np.ndarray, "clients"]) -> Float[np.ndarray, "draws"]:
    """The sum under every choice of signs, or many."""
    if len(values) <= _EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    else:
        drawn = np.random.default_rng(len(values)).choice((1.0, -1.0), (_DRAWS, len(values)))
        signs = np.vstack([np.ones(len(values)), drawn])
    return signs @ values


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of a mean over clients; None for fewer than two."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return mean - float(half), mean + float(half)


def mean_ranks(scores: Float[np.ndarray, "cases methods"], higher: bool) -> list[float]:
    """Each method's mean rank over cases, 1 for the best; equal ones share the mean of theirs.

    Args:
        scores: Without NaN.
        higher: Whether more is better.
    """
    ranks: list[float] = stats.rankdata(-scores if higher else scores, axis=1).mean(0).tolist()
    return ranks


def adjusted(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down correction: a hypothesis is rejected where its value is at most the level."""
    order = np.argsort(probabilities, kind="stable")
    found, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * probabilities[place]))
        found[place] = largest
    return found


def rejected(probabilities: Mapping[str, float], level: float = 0.05) -> tuple[str, ...]:
    """Whose hypothesis is rejected by Holm's step-down procedure, in the order of the mapping."""
    corrected = adjusted(list(probabilities.values()))
    return tuple(name for name, value in zip(probabilities, corrected, strict=True) if value <= level)

"""Whether a method harms its clients: a paired test against local-only training, and Holm's correction."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

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
    if len(values) <= _EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    else:
        drawn = np.random.default_rng(len(values)).choice((1.0, -1.0), (_DRAWS, len(values)))
        signs = np.vstack([np.ones(len(values)), drawn])
    return float((signs @ values <= values.sum() + 1e-9).mean())


def rejected(probabilities: Mapping[str, float], level: float = 0.05) -> tuple[str, ...]:
    """Whose hypothesis is rejected by Holm's step-down procedure, in the order of the mapping."""
    order = sorted(probabilities, key=lambda name: probabilities[name])
    found = set()
    for rank, name in enumerate(order):
        if probabilities[name] > level / (len(order) - rank):
            break
        found.add(name)
    return tuple(name for name in probabilities if name in found)

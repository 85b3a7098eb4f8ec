"""What may be said of two methods after some seeds: intervals, and tests that one is not worse.

The unit is a client of a seed. Seeds share no example, so a draw of the bootstrap takes seeds, and clients
within each of them, with repetition (Efron & Tibshirani 1993, chapter 8).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MARGIN = 0.01  # of accuracy, stated before the first run: who loses less is not worse
DRAWS = 10_000
_LEVEL = 0.95

Scores = Mapping[str, Mapping[str, float]]  # by seed and client


class Gain(NamedTuple):
    """A method against another one, in fractions of accuracy.

    Attributes:
        mean: Over clients, then seeds.
        low: Lower end of the interval.
        high: Its upper end.
        worse: How probable the data were if the method lost the margin or more; small: it is not worse.
    """

    mean: float
    low: float
    high: float
    worse: float


def gain(method: Scores, other: Scores, margin: float = MARGIN) -> Gain:
    """How much better a method is than another one, on the clients and seeds that both have."""
    values = differences(method, other)
    drawn = _bootstrap(values)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    worse = (1 + (drawn <= -margin).sum()) / (1 + len(drawn))
    mean = float(np.mean([own.mean() for own in values]))
    return Gain(mean, float(low), float(high), float(worse))


def not_below_better(gains: Sequence[Gain]) -> float:
    """How probable the data were if a method lost the margin or more to any that these are over: it has to
    hold its ground against each, so nothing is gained by which of them happened to be the better one."""
    return max(one.worse for one in gains)


def differences(method: Scores, other: Scores) -> list[Float[np.ndarray, "clients"]]:
    """A method's accuracy less another one's, client by client, seed by seed.

    Raises:
        ValueError: If they have no seed in common, or not the same clients in one.
    """
    seeds = sorted(method.keys() & other.keys())
    if not seeds:
        raise ValueError("the two methods share no seed")
    if wrong := [seed for seed in seeds if method[seed].keys() != other[seed].keys()]:
        raise ValueError(f"seed {wrong[0]}: the methods have different clients")
    return [np.array([method[s][client] - other[s][client] for client in sorted(method[s])]) for s in seeds]


def harmed(method: Scores, alone: Scores, margin: float) -> float:
    """Share of the clients of all seeds that lose more than a margin against training alone."""
    lost = np.concatenate(differences(method, alone)) < -margin
    return float(lost.mean())


def _bootstrap(values: Sequence[Float[np.ndarray, "clients"]]) -> Float[np.ndarray, "draws"]:
    stream = np.random.default_rng(0)
    means = [own[stream.integers(len(own), size=(DRAWS, len(values), len(own)))].mean(-1) for own in values]
    # Every place of a draw has a seed, and a draw of clients of that seed of its own.
    chosen = stream.integers(len(values), size=(DRAWS, len(values)))
    place = np.arange(len(values))
    drawn: np.ndarray = np.stack(means)[chosen, np.arange(DRAWS)[:, None], place].mean(1)
    return drawn

"""Are there groups among clients, and how many? Tests and fits of a matrix of cosines, on the host.

Off-diagonal cosines are cᵢₖ = rᵢₖ + noise, where r is what the clients' true directions have in common. Three
answers are weighed: everyone alone (r = 0); one group (r = aᵢaₖ: a common direction, of which clients show
more or less); several groups (one value inside, one between, along a tree of clients). How large the
noise is, is not known: LoRA's noise lies in few directions. So every statistic is free of scale, and its
distribution without structure is simulated with as many clients.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import squareform

from fedpl.server import trees

_DRAWS = 399
_DIRECTIONS = 64  # most directions of simulated noise
_KEPT = 0.8  # of the level: simulated noise is only like the true one
_COMMON = 1.0  # length of a simulated common direction
_FEW = 16  # with more clients four times fewer: a safe bound costs them little power
# Clients in a simulated draw: with more, noise imitates groups less, so their bound is on the safe side.
_MOST = 100
_UNEQUAL = 2.0  # a client of one group shows up to so many times as much, or as little, of it as the average
PRIOR = 0.03  # standard deviation of noise in cosines where nothing is known; it counts as one observation


class Bounds(NamedTuple):
    """What structureless noise exceeds with a given probability.

    Attributes:
        gain: Of `Fit.gain`: groups rather than one group.
        choice: log(residual of one value / residual of the best tree cut): what choosing a cut gains alone.
        common: Of `Fit.common`: one group rather than everyone alone.
    """

    gain: float
    choice: float
    common: float


class Fit(NamedTuple):
    """How well each answer describes the cosines.

    Attributes:
        labels: Clients of the best cut of the tree into several groups.
        residual: Sum of squares that it leaves.
        gain: log(residual of one group / residual of the best cut).
        choice: log(residual of one value / residual of the best cut).
        common: Mean cosine in units of its standard error.
        noise: Standard deviation of a cosine's noise, if there is one group.
    """

    labels: Int[np.ndarray, "n"]
    residual: float
    gain: float
    choice: float
    common: float
    noise: float


def fit(cosine: Float[np.ndarray, "n n"]) -> Fit:
    """The three answers' fits; with two clients there are no cuts, and `gain` is −∞."""
    n = len(cosine)
    values = squareform(cosine, checks=False)
    total, pairs = float(np.square(values).sum()), len(values)
    tiny = 1e-12 * (total + 1e-12)
    flat = total - values.sum() ** 2 / pairs
    common = _one_group(cosine)
    single = min(flat, float(np.square(values - common).sum()))
    noise = float(np.sqrt((single + PRIOR**2) / pairs))  # one degree of freedom less for the mean, one more
    shared = float(values.mean() / noise * np.sqrt(pairs))
    if n < 3:
        return Fit(np.arange(n), np.inf, -np.inf, 0.0, shared, noise)
    # Groups of cosines as they are, and of what they are beyond a common direction.
    labels, left = min(map(trees.plain, (values, values - common)), key=lambda found: found[1])
    left = max(left, tiny)
    gain, choice = (float(np.log(max(one, tiny) / left)) for one in (single, flat))
    return Fit(labels, left, gain, choice, shared, noise)


def _finer(cosine: Float[np.ndarray, "n n"], found: Fit) -> Fit:
    """The same with the labels of what leading eigenvalues show, where these leave less."""
    values, common = squareform(cosine, checks=False), _one_group(cosine)
    for own in (values, values - common):
        for labels, left in trees.spectral(own):
            if left < found.residual:
                found = found._replace(labels=labels, residual=left)
    return found


def residual(cosine: Float[np.ndarray, "n n"], labels: Int[np.ndarray, "n"]) -> float:
    """Sum of squares that one value inside groups and one between them leave, as in `fit`."""
    values, same = squareform(cosine, checks=False), squareform(labels[:, None] == labels, checks=False)
    return min(
        float(sum(np.square(part - part.mean()).sum() for part in (own[same], own[~same]) if len(part)))
        for own in (values, values - _one_group(cosine))
    )


def _one_group(cosine: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "pairs"]:
    """aᵢaₖ of one group, a within bounds of its mean; zero where cosines are not positive on average."""
    n = len(cosine)
    off = cosine - np.diag(cosine.diagonal())
    mean = off.sum() / (n * (n - 1))
    if mean <= 0:
        return np.zeros(n * (n - 1) // 2)
    middle = np.sqrt(mean)
    a = np.full(n, middle)
    for _ in range(10):
        a = np.clip(off @ a / np.maximum(a @ a - a * a, 1e-12), middle / _UNEQUAL, middle * _UNEQUAL)
    return squareform(np.outer(a, a), checks=False)


def bounds(clients: int, noise: float, level: float) -> Bounds:
    """What structureless vectors exceed with probability `level`.

    Args:
        clients: How many.
        noise: Standard deviation of a cosine, hence at least 1/noise² directions in which noise lies.
        level: Probability.
    """
    # Noise of two parts, few directions and many, has the cosines of many and the coincidences of few.
    most = _DIRECTIONS if clients <= _FEW else _DIRECTIONS // 4
    directions = 4 ** int(
        np.clip(np.log(max(noise, 1e-6) ** -2) / np.log(4.0), 1, np.log(most) / np.log(4.0))
    )
    safe = 1 - _KEPT * level

    def bound(draws: Float[np.ndarray, "draws"]) -> float:
        return float(np.quantile(draws, safe, method="higher"))

    gain, choice, common = map(bound, _null(min(clients, _MOST), directions, 0.0))
    if clients <= _FEW:  # a common direction makes the cosines of a client's row alike, and rows are short
        gain = max(gain, bound(_null(clients, 4 * _DIRECTIONS, _COMMON)[0]))
    return Bounds(gain, choice, common)


@lru_cache(maxsize=64)
def _null(clients: int, directions: int, common: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics of vectors without groups: noise, with a common direction of this length noise of unequal
    length, from half to twice. The seed is fixed: the same run, the same weights."""
    rng = np.random.default_rng((clients, directions))
    length = np.geomspace(1 / _UNEQUAL, _UNEQUAL, clients)[:, None] if common else 1.0
    found = []
    for _ in range(_DRAWS if clients <= 50 else _DRAWS // 2):
        noise = rng.normal(size=(clients, directions)) / np.sqrt(directions)
        vectors = np.hstack([length * noise, np.full((clients, 1), common)])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append(fit(vectors @ vectors.T)[2:5])
    gain, choice, shared = np.array(found).T
    return gain, choice, shared


def answer(
    cosine: Float[np.ndarray, "n n"], before: Int[np.ndarray, "n"], level: float
) -> Int[np.ndarray, "n"]:
    """Who belongs together: labels, one for all, one for each client, or groups.

    An answer is changed only by evidence: what was found before stays while its statistic lies above the
    median of noise, and another cut of the tree must gain more than choosing among cuts gains from noise.

    Args:
        cosine: Of the averaged inner products.
        before: Labels of the last answer; −1 for clients that were not there.
        level: Probability of seeing groups, or a common direction, where there are none.
    """
    n = len(cosine)
    alone, one = np.arange(n), np.zeros(n, int)
    if n < 2:
        return alone
    found = fit(cosine)
    new, stay = bounds(n, found.noise, level), bounds(n, found.noise, 0.5)
    known = before[before >= 0]
    kinds = len(np.unique(known))
    grouped = 1 < kinds < len(known)
    if found.gain > (stay if grouped else new).gain:
        found = _finer(cosine, found)
        if grouped and len(known) == n:
            old = residual(cosine, before)
            return before if np.log(old / found.residual) <= new.choice else found.labels
        return found.labels
    shared = 0 < kinds < len(known)
    return one if found.common > (stay if shared else new).common else alone

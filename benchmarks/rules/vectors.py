"""Random task vectors of known structure, in as few coordinates as leave all inner products as they would be.

m vectors of isotropic noise in d numbers have the inner products of m rows of a triangular m × m matrix
(Bartlett), so heads of 770 numbers and adapters of 74k cost the same; all vectors of all rounds are rows of
one matrix, as two of them would have a basis in common. LoRA's noise lies in few directions: half of an
adapter's noise energy here is in 64 that all clients share. Half of the noise energy stays over the rounds,
as a client's examples do; the other half is drawn anew.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

FADE = (1.0, 0.8, 0.6, 0.5, 0.4)  # signal's size in each round: clients fit their data
_SHARED = 64


class Truth(NamedTuple):
    """What is known of a population.

    Attributes:
        labels: True groups.
        signal: True directions of the first round, [n, signal's coordinates].
        noise: Noise's standard deviation of each client, in units of the average client's length.
    """

    labels: Int[np.ndarray, "n"]
    signal: Float[np.ndarray, "n k"]
    noise: Float[np.ndarray, "n"]


class Round(NamedTuple):
    """One round's vectors, what they would be without noise, and what halves of twice the noise agree on."""

    vectors: Float[np.ndarray, "n d"]
    signal: Float[np.ndarray, "n d"]
    halves: Float[np.ndarray, "n"]


def _groups(labels: Int[np.ndarray, "n"], size: float, common: float = 0.0) -> Truth:
    own = size * np.eye(labels.max() + 1)[labels]
    return Truth(labels, np.hstack([own, np.full((len(own), 1), common)]), np.ones(len(own)))


def _sized(counts: tuple[int, ...], n: int) -> Int[np.ndarray, "n"]:
    """Labels of groups in these proportions."""
    edges = np.round(np.cumsum(counts) / sum(counts) * n).astype(int)
    return np.searchsorted(edges, np.arange(n), side="right")


def _one(n: int, size: float) -> Truth:
    return _groups(np.zeros(n, int), size)


def _unequal(n: int, size: float) -> Truth:
    return _one(n, size)._replace(noise=np.geomspace(0.5, 2.0, n))


def _individual(n: int, size: float) -> Truth:
    return Truth(np.arange(n), size * np.eye(n), np.ones(n))


def _both(n: int, size: float) -> Truth:
    return Truth(np.zeros(n, int), np.hstack([size * np.eye(n), np.full((n, 1), size)]), np.ones(n))


def _opposed(n: int, size: float) -> Truth:
    labels = np.arange(n) % 2
    return Truth(labels, size * np.where(labels, -1.0, 1.0)[:, None], np.ones(n))


def _crossed(n: int, size: float) -> Truth:
    """Two conventions, n / 2 domains: a client is like its convention, and half as much like its domain."""
    convention, domain = np.arange(n) % 2, np.arange(n) // 2
    parts = [size * np.eye(2)[convention], size / 2 * np.eye(domain.max() + 1)[domain]]
    return Truth(convention, np.hstack(parts), np.ones(n))


def _noisy(n: int, size: float) -> Truth:
    """Two groups, and a client with nothing but noise of twice the length."""
    labels = np.arange(n) % 2
    labels[-1] = 2
    truth = _groups(labels, size)
    truth.signal[-1] = 0.0
    return truth._replace(noise=np.where(np.arange(n) == n - 1, 2.0, 1.0))


STRUCTURES: dict[str, Callable[[int, float], Truth]] = {
    "none": lambda n, _: Truth(np.arange(n), np.zeros((n, 1)), np.ones(n)),
    "individual": _individual,
    "one group": _one,
    "one group, unequal noise": _unequal,
    "common and individual": _both,
    "two groups": lambda n, size: _groups(_sized((1, 1), n), size),
    "two opposed": _opposed,
    "three groups": lambda n, size: _groups(_sized((1, 1, 1), n), size),
    "eight groups": lambda n, size: _groups(np.arange(n) % min(8, n), size),
    "pairs": lambda n, size: _groups(np.arange(n) // 2, size),
    "pairs in a common direction": lambda n, size: _groups(np.arange(n) // 2, size, size),
    "9 : 2 : 1": lambda n, size: _groups(_sized((9, 2, 1), n), size),
    "conventions cross domains": _crossed,
    "two groups, a noisy client": _noisy,
}


def rounds(truth: Truth, kind: str, rng: np.random.Generator) -> Iterator[Round]:
    """A run's rounds.

    Args:
        truth: The population.
        kind: head, 770 numbers; adapter, 74k numbers, half of their noise in few directions.
        rng: Source of noise.
    """
    n = len(truth.labels)
    other = rng.spawn(1)[0]  # what clients report changes no task vector
    stays, *anew = np.split(_noise(n * (1 + len(FADE)), kind, rng), 1 + len(FADE))
    for size, new in zip(FADE, anew, strict=True):
        noise = np.sqrt(0.5) * (stays + new) * truth.noise[:, None]
        signal = np.hstack([size * truth.signal, np.zeros_like(noise)])
        told = _halves(size * truth.signal, truth.noise, kind, other)
        yield Round(signal + np.hstack([np.zeros_like(truth.signal), noise]), signal, told)


def _halves(
    signal: Float[np.ndarray, "n k"], noise: Float[np.ndarray, "n"], kind: str, rng: np.random.Generator
) -> Float[np.ndarray, "n"]:
    """Cosine of the task vectors that two halves of each client's examples give."""
    found = []
    for own, length in zip(signal, noise, strict=True):
        one, other = np.sqrt(2) * length * _noise(2, kind, rng)
        a, b = np.hstack([own, one]), np.hstack([own, other])
        found.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    return np.array(found)


def _noise(n: int, kind: str, rng: np.random.Generator) -> Float[np.ndarray, "n _"]:
    if kind == "head":
        return _isotropic(n, 770, rng)
    shared = rng.normal(size=(n, _SHARED)) / np.sqrt(_SHARED)
    return np.sqrt(0.5) * np.hstack([_isotropic(n, 74_000, rng), shared])


def _isotropic(n: int, numbers: int, rng: np.random.Generator) -> Float[np.ndarray, "n _"]:
    if n >= numbers:
        return rng.normal(size=(n, numbers)) / np.sqrt(numbers)
    lower = np.tril(rng.normal(size=(n, n)), -1)
    lower[np.arange(n), np.arange(n)] = np.sqrt(rng.chisquare(numbers - np.arange(n)))
    return lower / np.sqrt(numbers)

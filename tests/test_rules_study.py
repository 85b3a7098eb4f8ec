"""Vectors of the study of server rules have the structure that the study names: its noise is noise."""

from itertools import combinations

import numpy as np
import pytest

from benchmarks.rules.vectors import FADE, STRUCTURES, rounds

# Standard deviation of an inner product of two clients' noise, half of whose energy lies in 64 directions.
SPREAD = {"head": np.sqrt(1 / 770), "adapter": np.sqrt(0.25 / 74_000 + 0.25 / 64)}


# Six parts of 200 clients' noise are more rows than a head has numbers.
@pytest.mark.parametrize("clients", [24, 200])
@pytest.mark.parametrize("kind", ["head", "adapter"])
def test_half_of_the_noise_stays_and_none_is_shared(kind: str, clients: int) -> None:
    found = [one.vectors for one in rounds(STRUCTURES["none"](clients, 0.0), kind, np.random.default_rng(7))]
    assert len(found) == len(FADE)
    mean = 6 * SPREAD[kind] / np.sqrt(clients)
    for vectors in found:
        products = vectors @ vectors.T
        assert abs(products.diagonal().mean() - 1.0) < np.sqrt(2) * mean
        assert np.abs(products - np.diag(products.diagonal())).max() < 6 * np.sqrt(2) * SPREAD[kind]
    for one, other in combinations(found, 2):
        assert abs((one * other).sum(1).mean() - 0.5) < np.sqrt(2) * mean


def test_halves_tell_what_whole_vectors_hold() -> None:
    """By Spearman and Brown the share of signal, which is the cosine of two clients of one group."""
    size, truth = 0.8, STRUCTURES["one group"](100, 0.8)
    first = next(rounds(truth, "head", np.random.default_rng(3)))
    half = first.halves.mean()
    length = np.sqrt((first.vectors**2).sum(1))
    cosine = (first.vectors @ first.vectors.T / np.outer(length, length))[np.triu_indices(100, 1)].mean()
    share = size**2 / (size**2 + 1)
    # Noise of a head: 0.036 a pair; clients' own lengths and crossings with the direction count alike.
    assert abs(cosine - share) < 6 * SPREAD["head"] / 10
    assert abs(2 * half / (1 + half) - share) < 6 * 2 * SPREAD["head"] / 10

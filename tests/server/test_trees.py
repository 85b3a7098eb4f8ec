"""Cuts of trees: what leading eigenvectors show of many clients."""

import numpy as np
import pytest
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from fedpl.server import structure, trees


def cosines(labels: np.ndarray, signal: float, seed: int = 0, directions: int = 400) -> np.ndarray:
    """Of vectors with a share `signal` of their energy in the group's direction."""
    rng, n = np.random.default_rng(seed), len(labels)
    noise = rng.normal(size=(n, directions)) / np.sqrt(directions)
    own = np.eye(labels.max() + 1)[labels]
    vectors = np.hstack([np.sqrt(signal) * own, np.sqrt(1 - signal) * noise])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.mark.parametrize("seed", range(3))
def test_many_clients_of_which_a_pair_shows_little(seed: int) -> None:
    """Groups of fifty whose cosines are as large as their noise: coincidences mislead a tree."""
    labels = np.arange(200) % 4
    cosine = cosines(labels, 0.06, seed)
    values = squareform(cosine, checks=False)
    plain, left = trees.plain(values)
    found, least = min(trees.spectral(values), key=lambda cut: cut[1])
    assert adjusted_rand_score(labels, plain) < 0.95
    assert adjusted_rand_score(labels, found) == 1
    assert least < left
    answer = structure.answer(cosine, np.full(200, -1), 0.05)
    assert adjusted_rand_score(labels, answer) == 1


def test_what_a_cut_leaves_is_what_it_says() -> None:
    labels = np.arange(40) % 3
    values = squareform(cosines(labels, 0.3), checks=False)
    for found, left in (trees.plain(values), *trees.spectral(values)):
        same = squareform(np.equal.outer(found, found), checks=False)
        right = sum(np.square(part - part.mean()).sum() for part in (values[same], values[~same]))
        assert left == pytest.approx(right)
        assert (found[found] == found).all()
        assert (found <= np.arange(40)).all()


def test_few_clients_have_no_eigenvalues_to_spare() -> None:
    assert list(trees.spectral(squareform(cosines(np.arange(7) % 2, 0.5), checks=False))) == []
    assert len(list(trees.spectral(squareform(cosines(np.arange(8) % 2, 0.5), checks=False)))) == 1


def test_pairs_among_many_stay_pairs() -> None:
    """More groups than eigenvalues are kept: the tree of the cosines themselves leaves less."""
    labels = np.arange(64) // 2
    answer = structure.answer(cosines(labels, 0.5), np.full(64, -1), 0.05)
    assert adjusted_rand_score(labels, answer) > 0.95

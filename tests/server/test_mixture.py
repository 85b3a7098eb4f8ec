"""Empirical Bayes: what is expected of an agreement depends on what all pairs show."""

import numpy as np
import pytest

from fedpl.server.mixture import chance, energy, learnt, mean


def every(seen: np.ndarray) -> np.ndarray:
    return np.ones(seen.shape, bool)


def shared(seen: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Expected squares by what the same pairs show."""
    return energy(learnt(seen, error, every(seen)), seen, error)


def measured(truth: np.ndarray, error: float, seed: int = 0) -> np.ndarray:
    noise = np.triu(np.random.default_rng(seed).normal(0, error, truth.shape), 1)
    return truth + noise + noise.T


@pytest.mark.parametrize("error", [0.05, 0.2, 0.4])
def test_nearly_as_good_as_who_knows_the_distribution(error: float) -> None:
    """Two kinds of pairs, unlike and alike: against the estimate that is told how many are alike."""
    labels = np.arange(24) % 4
    truth = np.equal.outer(labels, labels).astype(float)
    seen = measured(truth, error)
    pairs = np.triu_indices(24, 1)
    found = shared(seen, np.full_like(seen, error))
    assert (found == found.T).all()
    assert (np.abs(found) <= 1).all()
    alike = truth[pairs].mean()
    odds = alike / (1 - alike) * np.exp((np.square(seen) - np.square(seen - 1)) / (2 * error**2))
    best, own = (np.square(guess - truth)[pairs].mean() for guess in (odds / (1 + odds), found))
    assert own <= 1.5 * best + 1e-3


def test_a_little_agreement_of_all_is_not_much_of_some() -> None:
    """The largest of many noisy measurements of the same small value is chance, and seen to be."""
    truth = np.full((24, 24), 0.3)
    seen = measured(truth, 0.3)
    found = shared(seen, np.full_like(seen, 0.3))
    pairs = np.triu_indices(24, 1)
    assert seen[pairs].max() > 0.9
    assert found[pairs].max() < 0.35
    assert found[pairs].mean() == pytest.approx(0.09, abs=0.05)


def test_few_pairs_and_sure_ones() -> None:
    assert shared(np.array([[1.0]]), np.array([[1.0]])).shape == (1, 1)
    for agreement in (-0.5, 0.0, 0.5, 1.0):
        found = shared(np.full((2, 2), agreement), np.full((2, 2), 0.01))
        assert found[0, 1] == pytest.approx(agreement * abs(agreement), abs=0.02)
    assert shared(np.full((2, 2), -3.0), np.full((2, 2), 0.3))[0, 1] == pytest.approx(-1.0, abs=0.01)
    assert shared(np.full((2, 2), 40.0), np.full((2, 2), 1e-3))[0, 1] == pytest.approx(1.0, abs=1e-3)


def test_chances_are_those_of_a_sure_measurement() -> None:
    flat = np.full(81, 1 / 81)
    seen, error = np.array([0.3, 0.7, 0.9]), np.full(3, 1e-3)
    assert chance(0.7, flat, seen, error) == pytest.approx([0.0, 1.0, 1.0])
    assert chance(0.0, flat, seen, error) == pytest.approx([1.0] * 3)
    # 12 of 81 points of the grid lie at 0.725 or above; a measurement without information leaves that.
    assert chance(0.71, flat, seen, np.full(3, 1e3)) == pytest.approx([12 / 81] * 3, abs=1e-3)


def test_measurements_surer_than_the_grid_is_fine() -> None:
    """As of two groups of 250 clients, or of 10 million parameters; nothing vanishes on all of the grid."""
    seen, error = np.full((6, 6), 0.513), np.full((6, 6), 1e-5)
    mass = learnt(seen, error, every(seen))
    assert np.isfinite(mass).all()
    assert mass.sum() == pytest.approx(1.0)
    few = np.array([0.513, 0.7124, -0.2, 1.3])
    assert chance(0.7, mass, few, np.full(4, 1e-5)) == pytest.approx([0.0, 1.0, 0.0, 1.0])
    assert energy(mass, few, np.full(4, 1e-5)) == pytest.approx([0.525**2, 0.7**2, -(0.2**2), 1.0])


def test_many_clients_take_no_longer_than_their_pairs() -> None:
    """More pairs than the distribution is learnt from: the same answer as of those alone, nearly."""
    labels = np.arange(200) % 5
    truth = np.equal.outer(labels, labels).astype(float)
    found = shared(measured(truth, 0.3), np.full_like(truth, 0.3))
    few = shared(measured(truth, 0.3)[:60, :60], np.full((60, 60), 0.3))
    assert np.abs(found[:60, :60] - few).max() < 0.15


def test_what_some_pairs_show_is_expected_of_them_alone() -> None:
    """Half of the pairs agree: a measurement that tells nothing is taken for what its like are."""
    labels = np.arange(24) % 2
    same = np.equal.outer(labels, labels)
    error = np.full((24, 24), 0.2)
    seen = measured(same.astype(float), 0.2)
    unknown = np.array([0.5]), np.array([10.0])
    inside, between = (learnt(seen, error, which) for which in (same, ~same))
    assert mean(inside, *unknown)[0] > 0.9
    assert mean(between, *unknown)[0] < 0.1
    assert mean(learnt(seen, error, every(seen)), *unknown)[0] == pytest.approx(0.5, abs=0.05)
    nobody = learnt(seen, error, np.zeros_like(same))
    assert nobody.sum() == pytest.approx(1.0)
    assert nobody[40] == pytest.approx(
        1 / 3, abs=0.01
    )  # nothing, as likely as any agreement, or any opposition
    assert np.delete(nobody, 40) == pytest.approx(np.full(80, 2 / 3 / 80), abs=1e-3)

"""Are there groups? How often the answer is wrong on vectors of known structure, against binomial bounds."""

import numpy as np
import pytest
from scipy.stats import binom

from fedpl.server import structure
from fedpl.server.blocks import signal, weights
from fedpl.server.structure import answer, bounds, fit

NEW = -1  # no label yet


def cosines(
    labels: np.ndarray, size: float, common: float, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Of groups' directions of some length, a common one, and noise of length 1.

    A head is 770 numbers of isotropic noise; of an adapter's noise half lies in 64 directions, the other
    half in so many (74k) that its inner products vanish beside.
    """
    n = len(labels)
    head = rng.normal(size=(n, 770)) / np.sqrt(770)
    adapter = np.hstack(
        [rng.normal(size=(n, 64)) / np.sqrt(2 * 64), rng.normal(size=(n, 2000)) / np.sqrt(4000)]
    )
    found = np.hstack(
        [size * np.eye(n)[labels], np.full((n, 1), common), head if kind == "head" else adapter]
    )
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found @ found.T


def answers(labels: np.ndarray, size: float, common: float, kind: str, draws: int) -> list[np.ndarray]:
    rng = np.random.default_rng(len(labels))
    new = np.full(len(labels), NEW)
    return [answer(cosines(labels, size, common, kind, rng), new, 0.05) for _ in range(draws)]


def is_one(labels: np.ndarray) -> bool:
    return len(np.unique(labels)) == 1


def are_groups(labels: np.ndarray) -> bool:
    return 1 < len(np.unique(labels)) < len(labels)


@pytest.mark.parametrize("kind", ["head", "adapter"])
@pytest.mark.parametrize("n", [6, 12, 24, 100])
def test_groups_are_seen_where_there_are_none_at_the_level_that_was_asked_for(n: int, kind: str) -> None:
    draws = 60 if n == 100 else 150
    most = binom.ppf(0.999, draws, 0.05)
    nothing, one = np.zeros(n, int), answers(np.zeros(n, int), 0.0, 0.5, kind, draws)
    found = answers(nothing, 0.0, 0.0, kind, draws)
    assert sum(are_groups(labels) for labels in found) <= most
    assert sum(is_one(labels) for labels in found) <= most  # nor a common direction
    assert sum(are_groups(labels) for labels in one) <= most
    assert sum(is_one(labels) for labels in one) >= binom.ppf(0.001, draws, 0.9)


@pytest.mark.parametrize("kind", ["head", "adapter"])
@pytest.mark.parametrize(
    "labels",
    [[0, 1] * 6, [0, 1, 2] * 4, [*range(8)] * 2, [0] * 9 + [1] * 2 + [2], [0, 1, 2, 3] * 25],
    ids=["two", "three", "eight", "unequal", "four of 25"],
)
def test_groups_are_found(labels: list[int], kind: str) -> None:
    draws, true = 30, np.array(labels)
    found = answers(true, 0.6, 0.0, kind, draws)
    assert sum(are_groups(labels) for labels in found) >= binom.ppf(0.001, draws, 0.9)
    same = true[:, None] == true
    right = [((labels[:, None] == labels) == same).mean() for labels in found]
    assert np.mean(right) > 0.97


def test_tasks_that_have_much_in_common_some_of_them_more() -> None:
    """Three like tasks and three strangers, two clients each: no two values describe their cosines."""
    between = np.full((6, 6), 0.25)
    between[:3, :3] = 0.55
    between[5, :] = between[:, 5] = 0.08
    cosine = np.kron(between, np.ones((2, 2)))
    for task, own in enumerate((0.6, 0.6, 0.6, 0.55, 0.55, 0.25)):
        cosine[2 * task : 2 * task + 2, 2 * task : 2 * task + 2] = own
    rough = np.random.default_rng(0).normal(0, 0.03, (12, 12))
    cosine += np.triu(rough, 1) + np.triu(rough, 1).T
    np.fill_diagonal(cosine, 1.0)
    found = answer(cosine, np.full(12, NEW), 0.05)
    assert are_groups(found)
    assert found[6] == found[7] != found[8] == found[9]
    mixed = weights(signal(cosine, found, 0.05))
    assert (mixed[6:].reshape(6, 6, 2).sum(2)[[0, 2, 4], [3, 4, 5]] > 0.6).all()


def test_unequal_noise_in_one_group_makes_no_groups() -> None:
    rng, n, draws = np.random.default_rng(0), 12, 100
    rows = []
    for _ in range(draws):
        own = rng.normal(size=(n, 770)) / np.sqrt(770) * np.geomspace(0.5, 2.0, n)[:, None]
        own[:, 0] += 0.5
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        rows.append(answer(own @ own.T, np.full(n, NEW), 0.05))
    assert sum(map(are_groups, rows)) <= binom.ppf(0.999, draws, 0.05)


@pytest.mark.parametrize(("cosine", "together"), [(0.4, True), (0.0, False), (-0.4, False)])
def test_two_clients_are_decided_too(cosine: float, together: bool) -> None:
    found = answer(np.array([[1.0, cosine], [cosine, 1.0]]), np.full(2, NEW), 0.05)
    assert is_one(found) == together


def test_one_client_is_alone() -> None:
    assert answer(np.ones((1, 1)), np.full(1, NEW), 0.05).tolist() == [0]


def test_an_answer_stays_while_noise_alone_speaks_against_it() -> None:
    """Groups too weak to be found anew are kept once found; what contradicts them is not."""
    true, rng = np.array([0, 1] * 6), np.random.default_rng(3)
    weak = [cosines(true, 0.26, 0.0, "head", rng) for _ in range(40)]
    anew = [answer(one, np.full(12, NEW), 0.05) for one in weak]
    kept = [answer(one, true, 0.05) for one in weak]
    assert sum((labels == true).all() for labels in kept) > sum((labels == true).all() for labels in anew)
    others = np.array([0] * 6 + [1] * 6)
    assert answer(cosines(others, 0.8, 0.0, "head", rng), true, 0.05).tolist() == [0] * 6 + [6] * 6


def test_weights_follow_the_answer() -> None:
    rng, labels = np.random.default_rng(1), np.array([0, 1] * 6)
    same = labels[:, None] == labels
    apart = weights(signal(cosines(labels, 0.8, 0.0, "head", rng), labels, 0.0))
    assert apart[same].reshape(12, 6).sum(1) == pytest.approx(np.ones(12), abs=0.1)
    partly = weights(signal(cosines(labels, 0.4, 0.7, "head", rng), labels, 0.0))
    assert 0.15 < partly[~same].reshape(12, 6).sum(1).mean() < 0.45  # not apart: as far as they are alike
    one = weights(signal(cosines(labels * 0, 0.0, 0.8, "head", rng), labels * 0, 0.0))
    assert one == pytest.approx(np.full((12, 12), 1 / 12))
    own = weights(signal(cosines(labels * 0, 0.0, 0.8, "head", rng), labels * 0, 0.2))
    assert (own.diagonal() > 0.15).all()
    for found in (apart, partly, one, own):
        assert (found >= 0).all()
        assert found.sum(1) == pytest.approx(np.ones(12))


def test_bounds_do_not_depend_on_what_was_simulated_before() -> None:
    first = bounds(7, 0.1, 0.05)
    structure._null.cache_clear()
    bounds(9, 0.1, 0.05)
    assert bounds(7, 0.1, 0.05) == first


def test_statistics_have_no_scale() -> None:
    cosine = cosines(np.array([0, 1] * 4), 0.5, 0.0, "head", np.random.default_rng(2))
    half = cosine / 2
    np.fill_diagonal(half, 1.0)
    assert fit(half).gain == pytest.approx(fit(cosine).gain)

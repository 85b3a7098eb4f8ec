"""Defences against hostile clients, against their definitions and in what they are for."""

import jax.numpy as jnp
import numpy as np

from fedpl.server import Aggregator, Distance, FedBip, Krum, Softmax, Subject, Trimmed, Uniform
from tests import bounds
from tests.server.conftest import COSINE, LORA, reference, task_vectors, vectors


def update(rule: Aggregator, tau: np.ndarray, **given: object) -> tuple[np.ndarray, np.ndarray]:
    """Steps and weights of one round."""
    state, found = rule.update(rule.init(jnp.asarray(reference()), len(tau)), vectors(tau, **given), LORA)
    return np.asarray(state.personal) - reference(), np.asarray(found.weights[0])


def stepped(weights: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The step of everybody, and what float32 may be off by: lengths were measured, θ₀ is added and taken."""
    theta = reference().astype(np.float64)
    error = bounds.shares(weights) + bounds.gram(LORA.size) * weights
    allowed = bounds.product(weights, tau, theta, theta, error=error)
    return np.tile(weights @ tau.astype(np.float64), (len(tau), 1)), np.tile(allowed, (len(tau), 1))


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def test_trimming_row_by_row() -> None:
    tau = task_vectors(0, n=8)
    mask = [True] * 7 + [False]
    expected = np.zeros((8, 8))
    for i, row in enumerate(cosines(tau)[:7, :7]):
        others = sorted((k for k in range(7) if k != i), key=lambda k: row[k])
        kept = [i, *others[1:-1]]  # a fifth of six others is one at each end
        values = [np.exp((row[k] if k in kept else 0.0) / 0.3) for k in range(7)]
        expected[i, :7] = values / np.sum(values)
    expected[7, 7] = 1
    _, found = update(Aggregator(weighting=Trimmed(Softmax(0.3), share=0.2)), tau, mask=mask)
    # exp(cos / T): 1 / T times the error of the cosine, relative.
    bounds.within(found, expected, bounds.shares(expected, COSINE / 0.3 * expected))
    _, untrimmed = update(Aggregator(weighting=Trimmed(FedBip("clip"), share=0.0)), tau)
    _, plain = update(Aggregator(weighting=FedBip("clip")), tau)
    bounds.within(untrimmed, plain, 2 * bounds.shares(plain))


def krum(tau: np.ndarray, hostile: float, neighbours: int | None = None) -> list[int]:
    """Chosen clients, pair by pair in float64."""
    n = len(tau)
    f = int(hostile * n)
    neighbours = n - f - 2 if neighbours is None else neighbours
    scores = []
    for i in range(n):
        apart = sorted(np.sum((tau[i].astype(np.float64) - tau[k]) ** 2) for k in range(n) if k != i)
        scores.append(sum(apart[:neighbours]))
    return sorted(np.argsort(scores, kind="stable")[: n - f].tolist())


def test_krum_is_the_paper_s_choice() -> None:
    tau = task_vectors(1, n=10, groups=1)
    tau[[3, 8]] *= -5
    step, found = update(Aggregator(similarity=Distance(), weighting=Krum(0.2)), tau)
    chosen = krum(tau, 0.2)
    assert chosen == [0, 1, 2, 4, 5, 6, 7, 9]
    expected = np.zeros(10)
    expected[chosen] = 1 / 8
    bounds.within(found, np.tile(expected, (10, 1)), bounds.shares(expected))
    bounds.within(step, *stepped(expected, tau))


def test_krum_counts_the_neighbours_of_the_paper_no_more_and_no_fewer() -> None:
    """n − f − 2 of them: 4 of 7 others here. On a line, with one more or one fewer another client goes."""
    places = np.array([0.0, 2.0, 2.1, 4.1, 5.5, 5.7, 6.7, 7.0])
    tau = np.zeros((8, LORA.size), np.float32)
    tau[:, 0] = places
    _, found = update(Aggregator(similarity=Distance(), weighting=Krum(0.25), norm_bound=None), tau)
    chosen = np.flatnonzero(found[0] > 0).tolist()
    assert chosen == krum(tau, 0.25)
    assert len({tuple(krum(tau, 0.25, neighbours=k)) for k in (3, 4, 5)}) == 3, "the case tells them apart"


def test_krum_in_product_space_looks_at_the_weights_change() -> None:
    tau = task_vectors(1, n=10, groups=1)
    tau[[3, 8]] *= -5
    rule = Aggregator(Subject(space="product"), similarity=Distance(), weighting=Krum(0.2))
    _, found = update(rule, tau)
    assert not found[0, [3, 8]].any()


def test_long_task_vectors_are_cut_to_the_median() -> None:
    tau = task_vectors(2, groups=1)
    tau[4] *= 1000
    step, _ = update(Aggregator(weighting=Uniform(), norm_bound=2.0), tau)
    lengths = np.linalg.norm(tau, axis=1)
    cut = tau * np.minimum(1, 2 * np.sort(lengths)[2] / lengths)[:, None]
    bounds.within(step, *stepped(np.full(6, 1 / 6), cut))
    unbounded, _ = update(Aggregator(weighting=Uniform(), norm_bound=None), tau)
    assert np.linalg.norm(unbounded[0]) > 20 * np.linalg.norm(step[0])


def test_settings_that_cannot_work_are_named() -> None:
    wrong = [
        Aggregator(weighting=Trimmed(share=0.5)),
        Aggregator(weighting=Krum(0.5), similarity=Distance()),
        Aggregator(norm_bound=0.0),
    ]
    assert [len(rule.problems()) for rule in wrong] == [1, 1, 1]

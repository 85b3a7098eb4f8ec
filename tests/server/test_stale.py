"""Task vectors of absent clients count in part: discounted before they are weighed, and recorded so."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jaxtyping import Bool, Float

from fedpl.server import Aggregator, Bounded, FedBip, Softmax, Uniform, Wiener
from tests import bounds
from tests.server.conftest import LORA, reference, task_vectors, vectors

# Rows whose sums come near zero once client 3 counts for half.
COSINES = ((1, -0.8, -0.7, 0.9), (-0.8, 1, 0.5, -0.6), (-0.7, 0.5, 1, -0.5), (0.9, -0.6, -0.5, 1))


@dataclass(frozen=True)
class Given(Bounded):
    """Similarities that are made up."""

    values: tuple[tuple[float, ...], ...] = ()

    def __call__(
        self, products: Float[Array, "groups n n"], mask: Bool[Array, "n"]
    ) -> Float[Array, "groups n n"]:
        pairs = mask[:, None] & mask
        return jnp.broadcast_to(jnp.where(pairs, jnp.array(self.values, jnp.float32), 0.0), products.shape)


def round_of(rule: Aggregator, cosines: np.ndarray, age: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and recorded weights of one round."""
    given = Given(tuple(map(tuple, np.asarray(cosines, float).tolist())))
    rule = Aggregator(similarity=given, weighting=rule.weighting, stale_discount=rule.stale_discount)
    n = len(age)
    tau = task_vectors(0, n)
    start = np.tile(reference(), (n, 1))
    state = rule.init(jnp.asarray(reference()), n)
    state, found = rule.update(state, vectors(tau, mask=[a == 0 for a in age], age=age), LORA)
    steps = np.asarray(state.personal) - start
    weights = np.asarray(found.weights[0])
    here = [i for i in range(n) if age[i] == 0]
    allowed = bounds.product(weights, tau, start, start)
    bounds.within(steps[here], (weights @ tau.astype(float))[here], allowed[here])
    return steps, weights


@pytest.mark.parametrize("discount", [0.3, 0.5, 0.56, 0.9])
def test_a_discount_does_not_reach_below_the_floor(discount: float) -> None:
    """Once: client 0 took 52 times its own update reversed at 0.5, 659 times at 0.56."""
    rule = Aggregator(stale_discount=discount, weighting=FedBip(bound=None))
    _, weights = round_of(rule, np.array(COSINES), [0, 0, 0, 1])
    assert np.abs(weights).sum(1).max() <= 4 / FedBip().floor
    assert weights[0, 0] > 0
    row = np.array(COSINES[0]) * [1, 1, 1, discount]
    divided = row.sum() >= FedBip().floor
    expected = row / row.sum() if divided else np.eye(4)[0]
    bounds.within(
        weights[0], expected, bounds.shares(row if divided else expected, bounds.gamma(2) * np.abs(row))
    )


def test_weights_stay_bounded_whoever_is_away() -> None:
    """|s| is at most 1 and a row's sum at least the floor: Σ|p| is at most n / floor, and seldom large."""
    rng = np.random.default_rng(0)
    worst = []
    for _ in range(40):
        x = rng.normal(size=(12, 4))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        age = [0] * 6 + rng.integers(1, 4, 6).tolist()
        _, weights = round_of(Aggregator(stale_discount=0.5), x @ x.T, age)
        worst.append(np.abs(weights[:6]).sum(1).max())
        bounds.within(weights[:6].sum(1, dtype=float), np.ones(6), bounds.shares(weights[:6]).sum(1))
    assert max(worst) <= 12 / FedBip().floor


@pytest.mark.parametrize("weighting", [FedBip("clip"), Uniform(), Softmax()])
def test_weights_that_are_not_negative_keep_their_sums(weighting: object) -> None:
    rule = Aggregator(weighting=weighting, stale_discount=0.5)  # type: ignore[arg-type]
    cosines = np.array(((1, 0.5, 0.2), (0.5, 1, 0.1), (0.2, 0.1, 1)))
    _, weights = round_of(rule, cosines, [0, 0, 2])
    _, fresh = round_of(rule, cosines, [0, 0, 0])
    bounds.within(weights[:2].sum(1, dtype=float), np.ones(2), bounds.shares(weights[:2]).sum(1))
    share = fresh[0] * [1, 1, 0.25]
    bounds.within(weights[0], share / share.sum(), 2 * bounds.shares(share))


@pytest.mark.parametrize("weighting", [FedBip(), Wiener(), Uniform()])
def test_no_one_absent_no_difference(weighting: object) -> None:
    with_discount = Aggregator(weighting=weighting, stale_discount=0.5)  # type: ignore[arg-type]
    without = Aggregator(weighting=weighting)  # type: ignore[arg-type]
    found = [round_of(rule, np.array(COSINES), [0] * 4) for rule in (with_discount, without)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])

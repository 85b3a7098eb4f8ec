"""From weights to aggregates: products of factors, residuals, shared tensors, momentum, absent clients."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.server import (
    Aggregator,
    BySize,
    FactorWise,
    FedBip,
    Local,
    ProductSpace,
    Residual,
    Stacking,
    Uniform,
    Weighting,
)
from fedpl.server.state import ServerState
from tests import bounds
from tests.server.conftest import LORA, dense, reference, task_vectors, vectors


@dataclass(frozen=True)
class Fixed(Weighting):
    """These weights, whatever came."""

    rows: tuple[tuple[float, ...], ...]

    def __call__(self, similarity: jax.Array, mask: jax.Array, num_examples: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.array(self.rows, similarity.dtype), similarity.shape)


def start(n: int = 6, seed: int = 1, apart: float = 0.1) -> np.ndarray:
    """Different aggregates, as after some personalised rounds."""
    return reference() + apart * np.random.default_rng(seed).normal(size=(n, LORA.size)).astype(np.float32)


def after(rule: Aggregator, personal: np.ndarray, tau: np.ndarray, **given: object) -> ServerState:
    state = rule.init(jnp.asarray(reference()), len(tau))._replace(personal=jnp.asarray(personal))
    return rule.update(state, vectors(tau, **given), LORA)[0]


def columns(*kinds: str) -> np.ndarray:
    return np.concatenate([np.arange(e.start, e.stop) for e in LORA.entries if e.kind in kinds])


def test_models_are_mixed_instead_of_updates() -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(weighting=FedBip("clip"), combine=FactorWise("models"))
    state = rule.init(jnp.asarray(reference()), 6)._replace(personal=jnp.asarray(personal))
    new, found = rule.update(state, vectors(tau), LORA)
    p, models = np.asarray(found.weights[0], float), personal + tau.astype(float)
    # The step is the difference to the own aggregate, which is added again.
    bounds.within(
        new.personal, p @ models, bounds.product(p, np.abs(personal) + np.abs(tau), personal, personal)
    )


def test_who_counts_nothing_goes_on_from_whom_it_follows() -> None:
    """The step is that of updates, on the mean of the aggregates that are taken; absent ones stay."""
    personal, tau = start(), task_vectors(0)
    p = np.array(
        [
            [0.5, 0.5, 0, 0, 0, 0],
            [0, 0, 0.75, 0.25, 0, 0],  # follows
            [0, 0, 1, 0, 0, 0],
            [2, 0, -1, 0, 0, 0],  # follows, and takes nothing of the aggregate that it takes away
            [0, 0, 0, 0, 0, 0],  # takes nothing
            [0, 0, 0, 1, 0, 0],  # absent
        ],
        np.float32,
    )
    goes_on = np.eye(6)
    goes_on[1] = [0, 0, 0.75, 0.25, 0, 0]
    goes_on[3] = [1, 0, 0, 0, 0, 0]
    here, rows = [True] * 5 + [False], tuple(map(tuple, p.tolist()))
    for granularity in ("model", "block"):
        rule = Aggregator(granularity=granularity, weighting=Fixed(rows), combine=FactorWise("followers"))
        new = np.asarray(after(rule, personal, tau, mask=here).personal)
        sizes = np.abs(goes_on) @ np.abs(personal) + np.abs(p) @ np.abs(tau) + np.abs(personal)
        expected = goes_on @ personal + np.where(np.array(here)[:, None], p, 0) @ tau
        bounds.within(new[:5], expected[:5], 20 * bounds.F32 * sizes[:5])
        np.testing.assert_array_equal(new[5], personal[5])


def test_steps_of_the_own_length() -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(granularity="block", weighting=Uniform(), combine=FactorWise(match_norm=True))
    step = np.asarray(after(rule, personal, tau).personal) - personal
    for begin, end in LORA.boundaries("block"):
        own, mean = tau[:, begin:end].astype(float), tau[:, begin:end].mean(0, dtype=float)
        length = np.linalg.norm(own, axis=1, keepdims=True)
        # Two lengths of sums, and a mean scaled by their ratio; the aggregate's rounding stays in the step.
        size = np.abs(own).mean(0) * length / np.linalg.norm(mean)
        allowed = bounds.cosine(end - begin) * size + bounds.F32 * 2 * np.abs(personal[:, begin:end])
        bounds.within(step[:, begin:end], mean * length / np.linalg.norm(mean), allowed + bounds.F32 * size)


def best_of_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, values, vt = np.linalg.svd(matrix)
    return u[:, :rank] * values[:rank] @ vt[:rank]


def cut_error(matrix: np.ndarray, size: float, n: int, rank: int = 3) -> float:
    """Of the best product of that rank, for a sum of terms of that size.

    QR and SVD err by a rounding for every row and column (of all factors side by side, before and after); how
    far singular vectors turn by that, the gap decides (Wedin).
    """
    values = np.linalg.svd(matrix)[1]
    error = bounds.gamma(2 * (sum(matrix.shape) + 2 * rank * (n + 1))) * size
    return error * (1 + 2 * values[0] / (values[rank - 1] - values[rank]))


@pytest.mark.parametrize("mixes", ["updates", "models"])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("n", [2, 6])
def test_product_space_gives_the_best_factors_of_the_mixed_products(
    mixes: str, balance: bool, n: int
) -> None:
    """n = 2 goes by QR of the stacked factors (or, for updates, already by the whole product), n = 6 not."""
    personal, tau = start(n), task_vectors(0, n)
    rule = Aggregator(weighting=FedBip("clip"), combine=ProductSpace(mixes, balance))
    state = rule.init(jnp.asarray(reference()), n)._replace(personal=jnp.asarray(personal))
    new, found = rule.update(state, vectors(tau), LORA)
    p = np.asarray(found.weights[0], np.float64)
    old, tuned = [dense(x) for x in personal], [dense(x) for x in personal + tau]
    for i, theta in enumerate(np.asarray(new.personal)):
        for m, product in enumerate(dense(theta)):
            mixed = sum(p[i, k] * (tuned[k][m] - (mixes == "updates") * old[k][m]) for k in range(n))
            mixed = mixed + (old[i][m] if mixes == "updates" else 0)
            lengths = [np.linalg.norm(old[k][m]) + np.linalg.norm(tuned[k][m]) for k in range(n)]
            size = lengths[i] + np.abs(p[i]) @ lengths
            bounds.within(product, best_of_rank(mixed, 3), cut_error(mixed, size, n))
    head = columns("head")
    expected = p @ (tau + personal)[:, head] if mixes == "models" else personal[:, head] + p @ tau[:, head]
    sizes = np.abs(personal) + np.abs(tau)
    allowed = bounds.product(p, sizes[:, head], personal[:, head], personal[:, head])
    bounds.within(np.asarray(new.personal)[:, head], expected, allowed)
    a, b = LORA.pairs[0]
    norms = [np.linalg.norm(np.asarray(new.personal)[0, e.start : e.stop]) for e in (a, b)]
    # Balanced factors are as long as each other; √Σσ of orthonormal rows that LAPACK leaves off by γ.
    assert (abs(norms[0] - norms[1]) < 2 * 18 * bounds.gamma(2 * 18) * norms[0]) == balance


@pytest.mark.parametrize("weighting", [Uniform(), BySize()])
def test_residuals_make_the_mean_of_products_exact(weighting: object) -> None:
    """W + s B̄Ā is the mean of the clients' W + s BA, over two rounds; factor-wise averaging misses it."""
    sizes = [1, 2, 3, 4, 5, 15]
    share = np.full(6, 1 / 6) if weighting == Uniform() else np.array(sizes) / 30
    for combine in (Residual(), Stacking(), FactorWise("models")):
        rule = Aggregator(weighting=weighting, combine=combine)
        state = rule.init(jnp.asarray(reference()), 6)
        base, allowed = [np.zeros((8, 10)) for _ in LORA.pairs], 0.0
        for seed in (0, 1):
            tau = task_vectors(seed)
            tuned = [dense(theta) for theta in np.asarray(state.personal) + tau]
            # Means over 6 clients of products of rank 3, and what one such product misses of them.
            largest = [dense(theta) for theta in np.abs(state.personal) + np.abs(tau)]
            allowed += 2 * bounds.gamma(6 + 3 + 8) * np.max(largest)
            exact = [base[m] + sum(share[k] * tuned[k][m] for k in range(6)) for m in range(3)]
            state, _ = rule.update(state, vectors(tau, sizes=sizes), LORA)
            residual = np.asarray(
                state.residual if state.residual is not None else jnp.zeros(LORA.residual_size)
            )
            base = [part.reshape(8, 10) for part in np.split(residual, 3)]
            error = [
                np.abs(b + p - e).max()
                for b, p, e in zip(base, dense(np.asarray(state.personal[2])), exact, strict=True)
            ]
            assert (max(error) < allowed) == (combine != FactorWise("models")), combine
        if combine == Stacking():
            lora = columns("lora_A", "lora_B")
            np.testing.assert_array_equal(
                np.asarray(state.personal)[:, lora], np.tile(reference()[lora], (6, 1))
            )


def test_what_changes_the_frozen_weights_needs_one_row_for_all() -> None:
    (found,) = Aggregator(combine=Residual()).problems()
    assert "Residual" in found
    assert "Uniform" in found
    assert len(Aggregator(weighting=Uniform(), combine=Stacking(), share=("lora_A",)).problems()) == 1
    assert len(Aggregator(weighting=Uniform(), combine=Stacking(), server_momentum=0.5).problems()) == 1
    assert not Aggregator(weighting=Uniform(), combine=Stacking()).problems()


def averaged(personal: np.ndarray, tau: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Aggregates after a step by the plain mean, and what they may be off by."""
    p, rows, base = np.full((len(tau), len(tau)), 1 / len(tau)), tau[:, where], personal[:, where]
    return base + p @ rows, bounds.product(p, rows, base, error=bounds.shares(p))


@pytest.mark.parametrize(
    "share", [("lora_A",), ("lora_B", "head"), ("lora_A", "lora_B"), ("head",)], ids="-".join
)
def test_what_is_not_shared_stays_the_client_s_own(share: tuple) -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(weighting=Uniform(), share=share)
    found = np.asarray(after(rule, personal, tau).personal)
    shared = columns(*share)
    own = np.setdiff1d(np.arange(LORA.size), shared)
    both = np.abs(personal) + np.abs(tau)
    bounds.within(found[:, own], (personal + tau.astype(float))[:, own], bounds.gamma(3) * both[:, own])
    bounds.within(found[:, shared], *averaged(personal, tau, shared))
    assert rule.exchanged(LORA) == len(shared)


def test_the_last_blocks_stay_the_client_s_own() -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(weighting=Uniform(), local_blocks=1)
    found = np.asarray(after(rule, personal, tau).personal)
    own = np.concatenate([np.arange(e.start, e.stop) for e in LORA.entries if "layer.1" in e.name])
    both = np.abs(personal) + np.abs(tau)
    bounds.within(found[:, own], (personal + tau.astype(float))[:, own], bounds.gamma(3) * both[:, own])
    assert rule.exchanged(LORA) == LORA.size - len(own)
    head = columns("head")
    bounds.within(found[:, head], *averaged(personal, tau, head))


def test_shrinking_towards_the_whole_model() -> None:
    tau = task_vectors(0)
    parts, whole = (
        np.asarray(rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)[1].weights)
        for rule in (Aggregator(granularity="block"), Aggregator())
    )
    rule = Aggregator(granularity="block", shrink=0.25)
    _, found = rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)
    sizes = 0.75 * np.abs(parts) + 0.25 * np.abs(whole)
    bounds.within(found.weights, 0.75 * parts + 0.25 * whole, bounds.gamma(2 * LORA.size) * sizes + 1e-30)


def test_the_server_s_momentum() -> None:
    rule = Aggregator(weighting=Uniform(), server_lr=0.5, server_momentum=0.9)
    state = rule.init(jnp.asarray(reference()), 6)
    velocity, theta = np.zeros(LORA.size), reference().astype(np.float64)
    for seed in range(3):
        tau = task_vectors(seed)
        state, _ = rule.update(state, vectors(tau), LORA)
        velocity = 0.9 * velocity + tau.mean(0)
        theta = theta + 0.5 * velocity
    sizes = np.abs(reference()) + 3 * np.max([np.abs(task_vectors(seed)).mean(0) for seed in range(3)], 0)
    bounds.within(state.personal, np.tile(theta, (6, 1)), bounds.gamma(3 * (6 + 4)) * sizes)


def test_absent_clients_may_count_with_what_they_last_sent() -> None:
    """Two rounds old at discount 0.5: a quarter of the weight, the rows' sums as before."""
    tau = task_vectors(0, groups=1)
    mask, age = [True] * 5 + [False], [0] * 5 + [2]
    rule = Aggregator(weighting=BySize(), stale_discount=0.5)
    personal = start(apart=0.0)
    found = np.asarray(after(rule, personal, tau, mask=mask, age=age).personal)
    share = np.array([1, 1, 1, 1, 1, 0.25]) / 5.25
    allowed = bounds.product(share, tau, personal[0], error=bounds.shares(share))
    bounds.within(found[0], personal[0] + share @ tau, allowed)
    fedbip = Aggregator(stale_discount=0.5)
    without = np.asarray(after(Aggregator(), personal, tau, mask=mask, age=age).personal)
    with_stale = np.asarray(after(fedbip, personal, tau, mask=mask, age=age).personal)
    assert np.abs(with_stale[0] - without[0]).max() > 1e-4
    np.testing.assert_array_equal(with_stale[5], personal[5])
    never = np.asarray(after(fedbip, personal, tau, mask=mask, age=[0] * 5 + [-1]).personal)
    np.testing.assert_array_equal(never, without)


def test_an_average_reaches_absent_clients_too() -> None:
    """Whoever is absent receives the one model when it comes next; personalised aggregates stay."""
    tau, mask = task_vectors(0), [True, True, False, True, True, True]
    personal = start(apart=0.0)
    for weighting, reached in ((Uniform(), True), (BySize(), True), (FedBip(), False), (Local(), False)):
        found = np.asarray(after(Aggregator(weighting=weighting), personal, tau, mask=mask).personal)
        assert np.array_equal(found[2], found[0]) == reached
        assert np.array_equal(found[2], personal[2]) == (not reached)


def test_nobody_present_moves_nobody() -> None:
    personal = start(apart=0.0)
    for weighting in (Uniform(), FedBip()):
        found = after(Aggregator(weighting=weighting), personal, task_vectors(0), mask=[False] * 6)
        assert np.array_equal(found.personal, personal)

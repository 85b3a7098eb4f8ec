"""From weights to aggregates: products of factors, residuals, shared tensors, momentum, absent clients."""

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
)
from fedpl.server.state import ServerState
from tests.server.conftest import LORA, dense, reference, task_vectors, vectors


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
    np.testing.assert_allclose(
        new.personal, np.asarray(found.weights[0]) @ (personal + tau), rtol=1e-4, atol=1e-5
    )


def test_steps_of_the_own_length() -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(granularity="block", weighting=Uniform(), combine=FactorWise(match_norm=True))
    step = np.asarray(after(rule, personal, tau).personal) - personal
    for begin, end in LORA.boundaries("block"):
        np.testing.assert_allclose(
            np.linalg.norm(step[:, begin:end], axis=1), np.linalg.norm(tau[:, begin:end], axis=1), rtol=1e-3
        )
        mean = tau[:, begin:end].mean(0)
        cos = step[:, begin:end] @ mean / np.linalg.norm(step[:, begin:end], axis=1) / np.linalg.norm(mean)
        np.testing.assert_allclose(cos, 1, atol=1e-4)


def best_of_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, values, vt = np.linalg.svd(matrix)
    return u[:, :rank] * values[:rank] @ vt[:rank]


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
            np.testing.assert_allclose(product, best_of_rank(mixed, 3), atol=2e-4)
    head = columns("head")
    expected = p @ (tau + personal)[:, head] if mixes == "models" else personal[:, head] + p @ tau[:, head]
    np.testing.assert_allclose(np.asarray(new.personal)[:, head], expected, rtol=1e-4, atol=1e-5)
    a, b = LORA.pairs[0]
    norms = [np.linalg.norm(np.asarray(new.personal)[0, e.start : e.stop]) for e in (a, b)]
    assert (abs(norms[0] - norms[1]) < 1e-3 * norms[0]) == balance


@pytest.mark.parametrize("weighting", [Uniform(), BySize()])
def test_residuals_make_the_mean_of_products_exact(weighting: object) -> None:
    """W + s B̄Ā is the mean of the clients' W + s BA, over two rounds; factor-wise averaging misses it."""
    sizes = [1, 2, 3, 4, 5, 15]
    share = np.full(6, 1 / 6) if weighting == Uniform() else np.array(sizes) / 30
    for combine in (Residual(), Stacking(), FactorWise("models")):
        rule = Aggregator(weighting=weighting, combine=combine)
        state = rule.init(jnp.asarray(reference()), 6)
        base = [np.zeros((8, 10)) for _ in LORA.pairs]
        for seed in (0, 1):
            tau = task_vectors(seed)
            tuned = [dense(theta) for theta in np.asarray(state.personal) + tau]
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
            assert (max(error) < 1e-5) == (combine != FactorWise("models")), combine
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


@pytest.mark.parametrize(
    "share", [("lora_A",), ("lora_B", "head"), ("lora_A", "lora_B"), ("head",)], ids="-".join
)
def test_what_is_not_shared_stays_the_client_s_own(share: tuple) -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(weighting=Uniform(), share=share)
    found = np.asarray(after(rule, personal, tau).personal)
    shared = columns(*share)
    own = np.setdiff1d(np.arange(LORA.size), shared)
    np.testing.assert_allclose(found[:, own], (personal + tau)[:, own], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found[:, shared], personal[:, shared] + tau[:, shared].mean(0), rtol=1e-4, atol=1e-5
    )
    assert rule.exchanged(LORA) == len(shared)


def test_the_last_blocks_stay_the_client_s_own() -> None:
    personal, tau = start(), task_vectors(0)
    rule = Aggregator(weighting=Uniform(), local_blocks=1)
    found = np.asarray(after(rule, personal, tau).personal)
    own = np.concatenate([np.arange(e.start, e.stop) for e in LORA.entries if "layer.1" in e.name])
    np.testing.assert_allclose(found[:, own], (personal + tau)[:, own], rtol=1e-5, atol=1e-6)
    assert rule.exchanged(LORA) == LORA.size - len(own)
    head = columns("head")
    np.testing.assert_allclose(found[:, head], personal[:, head] + tau[:, head].mean(0), rtol=1e-4, atol=1e-5)


def test_shrinking_towards_the_whole_model() -> None:
    tau = task_vectors(0)
    parts, whole = (
        np.asarray(rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)[1].weights)
        for rule in (Aggregator(granularity="block"), Aggregator())
    )
    rule = Aggregator(granularity="block", shrink=0.25)
    _, found = rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)
    np.testing.assert_allclose(found.weights, 0.75 * parts + 0.25 * whole, rtol=1e-4, atol=1e-5)


def test_the_server_s_momentum() -> None:
    rule = Aggregator(weighting=Uniform(), server_lr=0.5, server_momentum=0.9)
    state = rule.init(jnp.asarray(reference()), 6)
    velocity, theta = np.zeros(LORA.size), reference().astype(np.float64)
    for seed in range(3):
        tau = task_vectors(seed)
        state, _ = rule.update(state, vectors(tau), LORA)
        velocity = 0.9 * velocity + tau.mean(0)
        theta = theta + 0.5 * velocity
    np.testing.assert_allclose(state.personal, np.tile(theta, (6, 1)), rtol=1e-4, atol=1e-5)


def test_absent_clients_may_count_with_what_they_last_sent() -> None:
    """Two rounds old at discount 0.5: a quarter of the weight, the rows' sums as before."""
    tau = task_vectors(0, groups=1)
    mask, age = [True] * 5 + [False], [0] * 5 + [2]
    rule = Aggregator(weighting=BySize(), stale_discount=0.5)
    personal = start(apart=0.0)
    found = np.asarray(after(rule, personal, tau, mask=mask, age=age).personal)
    share = np.array([1, 1, 1, 1, 1, 0.25]) / 5.25
    np.testing.assert_allclose(found[0], personal[0] + share @ tau, rtol=1e-4, atol=1e-5)
    fedbip = Aggregator(stale_discount=0.5)
    without = np.asarray(after(Aggregator(), personal, tau, mask=mask, age=age).personal)
    with_stale = np.asarray(after(fedbip, personal, tau, mask=mask, age=age).personal)
    assert np.abs(with_stale[0] - without[0]).max() > 1e-4
    np.testing.assert_array_equal(with_stale[5], personal[5])
    never = np.asarray(after(fedbip, personal, tau, mask=mask, age=[0] * 5 + [-1]).personal)
    np.testing.assert_allclose(never, without, rtol=1e-5, atol=1e-6)


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

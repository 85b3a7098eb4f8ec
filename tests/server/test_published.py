"""Published rules against references written from their papers, and against the known wrong versions."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from fedpl.errors import UserError
from fedpl.server import (
    Aggregator,
    BestOf,
    Bipartition,
    Blend,
    BySize,
    Clusters,
    Cosine,
    Distance,
    FactorWise,
    FedAmp,
    FedAwa,
    FedBip,
    FixedSelf,
    Local,
    Relu,
    SameChoice,
    SimplexQp,
    Softmax,
    Subject,
    Threshold,
    TopK,
    TrueGroups,
    Uniform,
)
from tests import bounds
from tests.server.conftest import COSINE, LORA, reference, task_vectors, vectors

MODELS = FactorWise(mixes="models")


def weights(aggregator: Aggregator, tau: np.ndarray, **given: object) -> np.ndarray:
    state = aggregator.init(jnp.asarray(reference()), len(tau))
    return np.asarray(aggregator.update(state, vectors(tau, **given), LORA)[1].weights[0], np.float64)


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


# FedAMP


def fedamp(models: np.ndarray, sigma: float, alpha: float) -> np.ndarray:
    """ξ_ij = α A'(‖wᵢ − wⱼ‖²) with A(x) = 1 − exp(−x/σ), pair by pair."""
    n = len(models)
    xi = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                apart = np.sum((models[i].astype(np.float64) - models[j]) ** 2)
                xi[i, j] = alpha * np.exp(-apart / sigma) / sigma
        xi[i, i] = 1 - xi[i].sum()
    return xi


FEDAMP = {"subject": Subject("cumulative"), "similarity": Distance(), "combine": MODELS}


@pytest.mark.parametrize(("sigma", "alpha"), [(2.0, 0.3), (50.0, 5.0)])
def test_fedamp_is_the_paper_s_formula(sigma: float, alpha: float) -> None:
    tau = task_vectors(0)
    rule = Aggregator(weighting=FedAmp(sigma, alpha), **FEDAMP)
    models = reference() + tau.astype(np.float64)
    expected = fedamp(models, sigma, alpha)
    # A distance ‖x‖² + ‖y‖² − 2 ⟨x, y⟩ of vectors τ; exp(−d / σ) is off by that over σ, the own by all.
    distance = 4 * bounds.gram(LORA.size + 4) * np.square(tau).sum(1).max()
    error = np.abs(expected) * (distance / sigma + bounds.gamma(6 + 8))
    np.fill_diagonal(error, error.sum(1) + bounds.gamma(6 + 8))
    bounds.within(weights(rule, tau), expected, error)
    state = rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)[0]
    allowed = bounds.product(expected, np.abs(models) + np.abs(tau), reference(), reference(), error=error)
    bounds.within(state.personal, expected @ models, allowed)


def test_fedamp_s_published_sigma_turns_lora_clients_against_themselves() -> None:
    """Adapters are close: at σ = α = 1 eight clients get self-weights near 2 − 8. The defaults do not."""
    tau = task_vectors(0, n=8) * 0.01
    published = weights(Aggregator(weighting=FedAmp(1.0, 1.0), **FEDAMP), tau)
    assert np.all(np.diagonal(published) < -5.9)
    ours = weights(Aggregator(weighting=FedAmp(), **FEDAMP), tau)
    assert np.all(ours >= 0)
    bounds.within(ours.sum(1), np.ones(8), bounds.shares(ours).sum(1))


# pFedGraph


SOLVED = 1e-10


def test_pfedgraph_is_the_minimum_of_its_programme() -> None:
    """Against a general solver, on cosines of cumulative task vectors, by size."""
    tau, sizes = task_vectors(1), [5, 1, 9, 2, 30, 4]
    rule = Aggregator(Subject("cumulative"), weighting=SimplexQp(0.8, 1.0), combine=MODELS)
    found = weights(rule, tau, sizes=sizes)
    prior = np.array(sizes) / np.sum(sizes)
    for row, s in zip(found, cosines(tau), strict=True):
        solved = scipy.optimize.minimize(
            lambda p, s=s: -s @ p + 0.8 * np.sum((p - prior) ** 2),
            prior,
            bounds=[(0, 1)] * 6,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"ftol": SOLVED},
        )
        # The programme's curvature is 2 · 0.8: a value within ftol is a point within √(ftol / 0.8). Ours is a
        # projection of cosines over 1.6, which does not lengthen a difference, in sums of six.
        projected = np.sqrt(6) * (COSINE / 1.6 + bounds.gamma(6 + 8) * 4)
        bounds.within(row, solved.x, projected + np.sqrt(SOLVED / 0.8))


def test_pfedgraph_s_sign() -> None:
    """d = −cos: similar clients weigh more. With the other sign opposed clients would."""
    tau = task_vectors(2)
    found = weights(Aggregator(Subject("cumulative"), weighting=SimplexQp(0.1, 1.0)), tau)
    same = np.equal.outer(np.arange(6) % 2, np.arange(6) % 2)
    assert found[same].mean() > 3 * found[~same].mean()


# FedAWA


def fedawa(tau: np.ndarray, base: np.ndarray, start: np.ndarray, lr: float) -> np.ndarray:
    """One Adam step on T, the slope by central differences."""
    tau, base = tau.astype(np.float64), base.astype(np.float64)

    def loss(t: np.ndarray) -> float:
        share = np.exp(t - t.max())
        share /= share.sum()
        tuned = base + tau
        cos = tuned @ base / np.linalg.norm(tuned, axis=1) / np.linalg.norm(base)
        return share @ (1 - cos) + share @ np.linalg.norm(tau - share @ tau, axis=1)

    eye = 1e-5 * np.eye(len(start))
    slope = np.array([(loss(start + e) - loss(start - e)) / 2e-5 for e in eye])
    return start - lr * slope / (np.abs(slope) + 1e-8)


def test_fedawa_learns_its_shares_by_adam() -> None:
    tau, sizes = task_vectors(3), [1, 2, 4, 8, 16, 128]
    rule = Aggregator(weighting=FedAwa(lr=0.1))
    state, found = rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau, sizes=sizes), LORA)
    expected = fedawa(tau, reference(), np.log(np.array(sizes, float)), 0.1)
    # Adam's first step is lr · g / |g|, whatever g is off by; log sizes and a sum of two are rounded.
    error = bounds.gamma(8) * np.abs(expected).max()
    bounds.within(state.of("weighting")["logits"], expected, error)
    share = np.exp(expected) / np.exp(expected).sum()
    bounds.within(found.weights[0], np.tile(share, (6, 1)), bounds.shares(share, 2 * error * share))


def test_fedawa_prefers_who_turned_its_model_less() -> None:
    """Two opposite vectors of one length: nothing but the alignment with θ̄ tells them apart."""
    theta = reference()
    rule = Aggregator(weighting=FedAwa(lr=0.1))
    tau = np.stack([theta, -theta]) * 1.5  # on the way of θ₀, and back beyond zero
    _, found = rule.update(rule.init(jnp.asarray(theta), 2), vectors(tau), LORA)
    assert found.weights[0, 0, 0] > found.weights[0, 0, 1] + 0.01


def test_fedawa_starts_at_the_data_shares() -> None:
    """The published start, softmax of the shares themselves, gives 128 examples hardly more than 1."""
    sizes = np.array([1, 2, 4, 8, 16, 128])
    found = weights(Aggregator(weighting=FedAwa(lr=1e-6)), task_vectors(3), sizes=sizes.tolist())
    share = sizes / sizes.sum()
    moved = 1e-6 + bounds.gamma(8) * np.log(128)  # by one step of Adam, and by logarithms
    bounds.within(found[0], share, bounds.shares(share, 2 * moved * share))
    published = np.exp(sizes / sizes.sum())
    assert (published / published.sum())[-1] < 0.4 < found[0, -1]


def test_fedawa_goes_on_from_its_last_shares() -> None:
    rule = Aggregator(weighting=FedAwa(lr=0.5))
    state = rule.init(jnp.asarray(reference()), 6)
    seen = []
    for seed in range(3):
        state, found = rule.update(state, vectors(task_vectors(seed)), LORA)
        seen.append(np.asarray(found.weights[0, 0]))
    assert np.abs(seen[2] - 1 / 6).max() > np.abs(seen[0] - 1 / 6).max()


# Clusters

THIRD = bounds.gamma(2) / 3  # a quotient, and no more


def test_clusters_find_the_groups_and_average_models_inside() -> None:
    tau = task_vectors(0, n=9, groups=3)
    rule = Aggregator(weighting=Clusters(), combine=MODELS)
    state, found = rule.update(rule.init(jnp.asarray(reference()), 9), vectors(tau), LORA)
    same = np.equal.outer(np.arange(9) % 3, np.arange(9) % 3)
    bounds.within(found.weights[0], same / 3, THIRD)
    models = reference() + tau.astype(np.float64)
    sizes = np.abs(models) + np.abs(tau)
    allowed = bounds.product(same / 3, sizes, reference(), reference(), error=THIRD * same)
    bounds.within(state.personal, same / 3 @ models, allowed)


def test_one_cluster_is_possible() -> None:
    """The published scan starts at two clusters: one group would always be split."""
    tau = task_vectors(0, groups=1)
    found = weights(Aggregator(weighting=Clusters(min_silhouette=0.2)), tau)
    bounds.within(found, np.full((6, 6), 1 / 6), THIRD)


def test_clusters_wait_keep_and_take_in_late_clients() -> None:
    rule = Aggregator(weighting=Clusters(warmup=2))
    state = rule.init(jnp.asarray(reference()), 6)
    late = [True] * 5 + [False]
    state, first = rule.update(state, vectors(task_vectors(0), late), LORA)
    np.testing.assert_array_equal(first.weights[0], np.eye(6))
    state, _ = rule.update(state, vectors(task_vectors(0), late), LORA)
    assert np.asarray(state.of("weighting")["labels"])[5] == -1
    state, third = rule.update(state, vectors(task_vectors(0)), LORA)
    same = np.equal.outer(np.arange(6) % 2, np.arange(6) % 2)
    bounds.within(third.weights[0], same / 3, THIRD)
    state, other = rule.update(state, vectors(task_vectors(0)[[1, 0, 2, 3, 4, 5]]), LORA)
    bounds.within(other.weights[0], same / 3, THIRD)


def test_cfl_splits_a_cluster_whose_mean_stands_still_and_no_other() -> None:
    rng = np.random.default_rng(0)
    up = rng.normal(size=LORA.size)
    opposed = (np.outer([1, 1, 1, -1, -1, -1], up) + 0.1 * rng.normal(size=(6, LORA.size))).astype(np.float32)
    rule = Aggregator(weighting=Bipartition(), combine=MODELS)
    state = rule.init(jnp.asarray(reference()), 6)
    state, found = rule.update(state, vectors(opposed), LORA)
    same = np.equal.outer(np.arange(6) < 3, np.arange(6) < 3)
    bounds.within(found.weights[0], same / 3, THIRD)
    state, found = rule.update(state, vectors(opposed), LORA)
    bounds.within(found.weights[0], same / 3, THIRD)
    agreed = np.abs(np.outer([1, 1, 1, 1, 1, 1], up)).astype(np.float32)
    bounds.within(weights(rule, agreed), np.full((6, 6), 1 / 6), THIRD)
    still = weights(Aggregator(weighting=Bipartition(longest_above=2.0)), opposed)
    bounds.within(still, np.full((6, 6), 1 / 6), THIRD)


def test_ifca_sends_everyone_the_model_it_chose_and_averages_those_who_chose_alike() -> None:
    rule = Aggregator(weighting=SameChoice(), receive=BestOf(models=2), combine=MODELS)
    assert rule.problems() == []
    state = rule.init(jnp.asarray(reference()), 6)
    models = np.asarray(rule.offer(state))
    assert not np.array_equal(models[0], models[1])
    chosen = np.array([0, 1, 0, 1, 1, 0])
    state = rule.settle(state, np.asarray(chosen))
    np.testing.assert_array_equal(state.personal, models[chosen])
    tau = task_vectors(0)
    state, _ = rule.update(state, vectors(tau), LORA)
    for model in (0, 1):
        tuned = (models[chosen] + tau.astype(np.float64))[chosen == model]
        sizes = (np.abs(models[chosen]) + np.abs(tau))[chosen == model]
        allowed = bounds.product(np.full(3, 1 / 3), sizes, models[model], models[model], error=THIRD)
        bounds.within(rule.offer(state)[model], tuned.mean(0), allowed)
    nobody = rule.settle(state, np.zeros(6, int))
    before = np.asarray(rule.offer(nobody))[1]
    after, _ = rule.update(nobody, vectors(tau), LORA)
    np.testing.assert_array_equal(rule.offer(after)[1], before)
    assert rule.received(LORA, 6) == 2 * LORA.size
    assert Aggregator().offer(Aggregator().init(jnp.asarray(reference()), 2)) is None


def test_who_is_absent_keeps_its_choice_and_its_model() -> None:
    rule = Aggregator(weighting=SameChoice(), receive=BestOf(models=3), combine=MODELS)
    state = rule.settle(rule.init(jnp.asarray(reference()), 3), np.asarray([2, 1, 0]))
    personal = np.asarray(state.personal)
    again = rule.settle(state, np.asarray([-1, 2, -1]))
    np.testing.assert_array_equal(again.of("receive")["choices"], [2, 2, 0])
    np.testing.assert_array_equal(np.asarray(again.personal)[[0, 2]], personal[[0, 2]])


def test_true_groups_are_averaged_and_have_to_be_known() -> None:
    tau = task_vectors(0)
    found = weights(Aggregator(weighting=TrueGroups()), tau, groups=("b", "a", "a", "b", "b", "b"))
    np.testing.assert_array_equal(found[1], [0, 0.5, 0.5, 0, 0, 0])
    with pytest.raises(UserError, match="name their group"):
        weights(Aggregator(weighting=TrueGroups()), tau)


# Selections


def test_selections_by_definition() -> None:
    tau, sizes = task_vectors(6), [1, 2, 3, 4, 5, 6]
    cos = cosines(tau)
    clipped = np.maximum(cos, 0)
    by_cosine = np.exp(cos / 0.2)
    best = np.where(np.argsort(np.argsort(-cos, 1), 1) < 3, clipped, 0)
    near = np.where(cos >= 0.3, clipped, 0)
    fixed = np.where(np.eye(6) > 0, 0, clipped)
    fixed = 0.7 * fixed / fixed.sum(1, keepdims=True) + 0.3 * np.eye(6)
    share = np.array(sizes) / np.sum(sizes)
    cases = {
        Softmax(0.2): by_cosine / by_cosine.sum(1, keepdims=True),
        Relu(): clipped / clipped.sum(1, keepdims=True),
        TopK(2): best / best.sum(1, keepdims=True),
        Threshold(0.3): near / near.sum(1, keepdims=True),
        FixedSelf(FedBip("clip"), 0.3): fixed,
        Blend(Local(), 0.25): 0.75 * np.eye(6) + 0.25 * share,
        Blend(BySize(), 1.0): np.tile(share, (6, 1)),
    }
    for weighting, expected in cases.items():
        found = weights(Aggregator(weighting=weighting), tau, sizes=sizes)
        # exp(cos / 0.2): five times the error of the cosine, relative; the others are their cosines' shares.
        error = COSINE / 0.2 * expected if weighting == Softmax(0.2) else COSINE * (expected != 0)
        bounds.within(found, expected, bounds.shares(expected, error))


def test_settings_that_cannot_work_are_named() -> None:
    wrong = [
        Softmax(0.0),
        TopK(-1),
        FixedSelf(Uniform(), 1.5),
        Blend(FedBip(floor=0.0), 2.0),
        SimplexQp(0.0),
        FedAmp(-1.0, 0.0),
        FedAwa(0.0, 0),
        Clusters(0, warmup=0),
        Bipartition(min_size=1),
    ]
    distances = (FedAmp,)
    assert [
        len(
            Aggregator(
                weighting=w, similarity=Distance() if isinstance(w, distances) else Cosine()
            ).problems()
        )
        for w in wrong
    ] == [1, 1, 1, 2, 1, 2, 2, 2, 1]
    assert len(Aggregator(weighting=SameChoice(), receive=BestOf(0)).problems()) == 1

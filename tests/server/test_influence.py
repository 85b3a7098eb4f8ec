"""How far one client can move another: bounded by the defaults, whatever it sends."""

import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import weights

from fedpl.presets import baseline
from fedpl.server import Aggregator, CorrectedCosine, FedBip
from fedpl.server.clusters import silhouette_clusters
from tests import bounds
from tests.server.conftest import COSINE, LORA, reference, task_vectors, vectors


def steps(rule: Aggregator, tau: np.ndarray) -> np.ndarray:
    state, _ = rule.update(rule.init(jnp.asarray(reference()), len(tau)), vectors(tau), LORA)
    return np.asarray(state.personal) - reference()


def against(tau: np.ndarray, cosine: float, length: float) -> np.ndarray:
    """A vector at a cosine with the first client's, of so many times the median length."""
    own = tau[0] / np.linalg.norm(tau[0])
    other = np.random.default_rng(9).normal(size=own.shape)
    other -= own * (own @ other)
    turned = cosine * own + (1 - cosine**2) ** 0.5 * other / np.linalg.norm(other)
    return (turned * length * np.median(np.linalg.norm(tau[1:], axis=1))).astype(np.float32)


@pytest.mark.parametrize("length", [0.01, 1.0, 99.0, 1e6])
@pytest.mark.parametrize("cosine", [-0.79, -0.72, -0.3, 0.5, 1.0])
def test_a_step_is_bounded_whatever_one_client_sends(cosine: float, length: float) -> None:
    """Once: 350 times the victim's own step, at cosine −0.72 and 99 medians."""
    tau = task_vectors(0, n=3, groups=3)
    tau[2] = against(tau, cosine, length)
    rule = Aggregator()
    assert isinstance(rule.weighting, FedBip)
    assert rule.weighting.bound is not None
    assert rule.norm_bound is not None
    middle = np.sort(np.linalg.norm(tau, axis=1))[1]
    largest = np.linalg.norm(steps(rule, tau), axis=1).max()
    # Lengths are roots of sums of squares; the aggregate θ₀ + step is rounded, and so is what is left of it.
    rounding = bounds.gram(LORA.size) + bounds.gamma(3 + 8)
    start = bounds.F32 * 2 * np.linalg.norm(reference())
    assert largest <= rule.weighting.bound * rule.norm_bound * middle * (1 + rounding) + start


@pytest.mark.parametrize("bound", [1.5, 3.0, 5.0])
def test_rows_are_bounded_and_otherwise_the_formula(bound: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = np.tanh(rng.normal(size=(6, 6)))
        values = ((values + values.T) / 2).astype(np.float32)
        np.fill_diagonal(values, 1.0)
        plain = np.asarray(weights.fedbip(values, floor=0.01))
        bounded = np.asarray(weights.fedbip(values, floor=0.01, bound=bound))
        size = np.abs(plain).sum(1)
        fits = size <= bound
        np.testing.assert_array_equal(bounded[fits], plain[fits])
        # P and N are sums; what is kept of N is (bound − 1) / (bound + 1) of P: P − N is 2 / (bound + 1).
        rounding = (bound + 1) * bounds.gamma(2 * 6 + 8) * bound
        bounds.within(np.abs(bounded[~fits]).sum(1), np.full((~fits).sum(), bound), bound * rounding)
        own = bounds.gamma(6 + 8) * np.abs(plain).sum(1) * np.abs(bounded).sum(1)
        bounds.within(bounded.sum(1), np.ones(6), np.where(fits, own, rounding))
        # Who is alike keeps its proportions, and so has who is opposed.
        for row in np.flatnonzero(~fits):
            for part in (values[row] > 0, values[row] < 0):
                ratio = bounded[row, part] / plain[row, part]
                bounds.within(ratio, np.full_like(ratio, ratio[0]), bounds.gamma(2 * 4) * ratio[0])


def test_below_the_floor_the_fall_back_holds_whatever_the_bound() -> None:
    values = np.array([[1.0, -0.6, -0.6], [-0.6, 1.0, 0.9], [-0.6, 0.9, 1.0]], np.float32)
    np.testing.assert_array_equal(np.asarray(weights.fedbip(values, bound=3.0))[0], [1, 0, 0])


def spectra(cosine: np.ndarray) -> float:
    """Of shares after 50 spectra: each is off by a rounding for every row and column, of the largest."""
    return 50**0.5 * bounds.gamma(2 * len(cosine)) * float(np.linalg.norm(cosine, 2))


@pytest.mark.parametrize("copies", [1, 2])
def test_a_copy_of_a_client_s_vector_does_not_isolate_it_in_fedbip_g(copies: int) -> None:
    """Once: its own noise counted as signal, since the copy shares it, and all others looked far away."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(2, 400))
    tau = np.repeat(common, 6, axis=0) * 0.5 + rng.normal(size=(12, 400))
    tau[6 : 6 + copies] = tau[0]
    cosine = np.asarray(weights.corrected(cosines(tau)))
    labels = silhouette_clusters(cosine.astype(np.float64), np.ones(12, bool), 8, "average", 0.2)
    assert set(np.flatnonzero(labels == labels[0])) == {*range(6 + copies)}
    once = [0, *range(1, 6), *range(6 + copies, 12)]
    alone = np.asarray(weights.corrected(cosines(tau[once])))
    # An entry is divided by the root of two shares, which are not below 0.05.
    bounds.within(cosine[np.ix_(once, once)], alone, 2 * spectra(cosines(tau)) / 0.05)


def test_without_copies_the_correction_is_what_it_was() -> None:
    cosine = cosines(np.random.default_rng(1).normal(size=(8, 60)) + 0.3)
    share = np.asarray(weights.fill_diagonal(jnp.asarray(cosine), jnp.ones(8, bool)))
    expected = np.clip(cosine / np.sqrt(np.outer(share, share)), -1, 1)
    np.fill_diagonal(expected, 1.0)
    # Where copies are looked for, another program computes the shares.
    error = bounds.gamma(8) + 2 * spectra(cosine) / share.min()
    bounds.within(weights.corrected(cosine), expected, error * np.abs(expected))


@pytest.mark.parametrize("preset", ["fedbip", "fedbip_l", "fedavg", "fedbip_g", "pfedgraph", "clusters"])
def test_the_length_of_what_one_sends_stops_mattering(preset: str) -> None:
    """Beyond the bound a longer vector does what the bound's does."""
    rule = baseline(preset).aggregator
    far, farther = (steps(rule, scaled(scale)) for scale in (20.0, 2e4))
    # Weights from cosines over a row's sum, which with one group is not below 1; of vectors that are cut.
    size = 5 * 2 * COSINE + bounds.gram(LORA.size)
    rest = 2 * bounds.F32 * np.abs(reference())
    bounds.within(far, farther, 2 * (size * 3 * np.abs(scaled(1.0)).max() + rest))


def scaled(scale: float) -> np.ndarray:
    tau = task_vectors(3, n=5, groups=1)
    tau[4] *= scale
    return tau


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return (unit @ unit.T).astype(np.float32)


def test_fedbip_g_has_the_correction() -> None:
    assert isinstance(baseline("fedbip_g").aggregator.similarity, CorrectedCosine)

"""Every weighting against its float64 reference, and the edge cases of its contract."""

import jax
import numpy as np
import pytest
from fedpl_kernels import reference, weights
from fedpl_kernels.weights._wiener import _RIDGE

from tests import bounds

SIZES = np.array([5, 1, 9, 2, 30, 4, 7])
LABELS = np.array([0, 1, 0, 2, 1, 0, 2])

# name: (function of (similarity, mask), its reference)
RULES = {
    f"fedbip-{negatives}-{fallback}-{floor}": (
        lambda s, m, f=floor, n=negatives, b=fallback: weights.fedbip(s, m, negatives=n, floor=f, fallback=b),
        lambda s, m, f=floor, n=negatives, b=fallback: reference.weights.fedbip(
            s, m, negatives=n, floor=f, fallback=b
        ),
    )
    for negatives in ("keep", "clip", "abs")
    for fallback in ("local", "uniform", "abs")
    for floor in (0.0, 0.2, 1.1)
} | {
    "softmax": (weights.softmax, reference.weights.softmax),
    "relu": (weights.relu, reference.weights.relu),
    "threshold": (
        lambda s, m: weights.threshold(s, m, minimum=0.1),
        lambda s, m: reference.weights.threshold(s, m, minimum=0.1),
    ),
    "top_k": (lambda s, m: weights.top_k(s, m, k=2), lambda s, m: reference.weights.top_k(s, m, k=2)),
    "simplex_qp": (weights.simplex_qp, reference.weights.simplex_qp),
    "simplex_qp-sizes": (
        lambda s, m: weights.simplex_qp(s, m, prior=SIZES, strength=0.05),
        lambda s, m: reference.weights.simplex_qp(s, m, prior=SIZES, strength=0.05),
    ),
}


def allowed(name: str, expected: np.ndarray) -> np.ndarray:
    """What is proportional to cosines is divided by its sum; an exponential first, a projection otherwise.

    exp: its argument is up to 2 / T = 20 in size and rounded twice, itself by 2 units in the last place.
    Projection: of entries up to 1 + 1 / (2 strength), less a level that is a mean of such differences.
    """
    if name.startswith("simplex_qp"):
        largest = 1 + 1 / (2 * (0.05 if "sizes" in name else 0.8))
        return np.full(expected.shape, 2 * bounds.gamma(7 + 8) * (2 * largest + 1))
    return bounds.shares(expected, (2 * 20 + 4) * bounds.F32 * expected if name == "softmax" else 0.0)


def cosines(seed: int, n: int = 7) -> np.ndarray:
    """Cosines of unit rows around two opposite directions, with a zero row."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 6)) + np.where(np.arange(n) % 2, 1.0, -0.6)[:, None]
    rows[3] = 0
    return reference.cosine(reference.gram(rows)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("absent", [(), (0,), (1, 5, 6), tuple(range(7))])
def test_rule_equals_reference(name: str, seed: int, absent: tuple[int, ...]) -> None:
    mask = ~np.isin(np.arange(7), absent)
    ours, theirs = RULES[name]
    similarity = cosines(seed)
    p = np.asarray(ours(similarity, mask))
    expected = theirs(similarity, mask)
    bounds.within(p, expected, allowed(name, expected))
    np.testing.assert_array_equal(p[3], np.eye(7)[3])
    for k in absent:
        np.testing.assert_array_equal(p[k], np.eye(7)[k])
        assert not np.delete(p[:, k], k).any()


@pytest.mark.parametrize("absent", [(), (2, 4), tuple(range(7))])
def test_priors_equal_reference(absent: tuple[int, ...]) -> None:
    mask = ~np.isin(np.arange(7), absent)
    theirs = reference.weights
    p = np.asarray(weights.softmax(cosines(0), mask))
    np.testing.assert_array_equal(weights.identity(mask), np.eye(7))
    for ours, expected in (
        (weights.by_size(SIZES, mask), theirs.by_size(SIZES, mask)),
        (weights.uniform(mask), theirs.by_size(np.ones(7), mask)),
        (weights.clusters(LABELS, mask), theirs.clusters(LABELS, mask)),
        (weights.fixed_self(p, 0.3), theirs.fixed_self(p, 0.3)),
        (
            weights.blend_prior(p, SIZES, mask, strength=0.25),
            theirs.blend_prior(p, SIZES, mask, strength=0.25),
        ),
    ):
        bounds.within(ours, expected, bounds.shares(expected))


def test_clusters_by_size() -> None:
    row = np.asarray(weights.clusters(LABELS, num_examples=SIZES))[0]
    expected = np.where(LABELS == 0, SIZES, 0) / 18
    bounds.within(row, expected, bounds.shares(expected))


def test_a_vanishing_row_sum_never_gives_unbounded_weights() -> None:
    similarity = np.full((8, 8), -1 / 7, np.float32)
    np.fill_diagonal(similarity, 1)
    for fallback, expected in (("local", np.eye(8)), ("uniform", np.full((8, 8), 0.125))):
        bounds.within(weights.fedbip(similarity, fallback=fallback), expected, bounds.shares(expected))
    p = np.asarray(weights.fedbip(similarity, fallback="abs"))
    assert p.min() > 0
    bounds.within(p.sum(1, dtype=float), np.ones(8), bounds.shares(p).sum(1))


def test_blocks_are_batched() -> None:
    stack, mask = np.stack([cosines(0), cosines(1)]), np.arange(7) != 6
    for name in ("fedbip", "softmax", "top_k", "simplex_qp"):
        rule = getattr(weights, name)
        one_by_one = np.stack([rule(s, mask) for s in stack])
        bounds.within(rule(stack, mask), one_by_one, 2 * allowed(name, one_by_one))
    noise = np.full(7, 0.5, np.float32)
    one_by_one = np.stack([weights.wiener(s, mask, noise=noise) for s in stack])
    error = np.stack([wiener_error(s, mask, noise) for s in stack])
    bounds.within(weights.wiener(stack, mask, noise=np.tile(noise, (2, 1))), one_by_one, 2 * error)
    # Where the noise is estimated, 50 spectra come first: each block is at least its own and not the other.
    one_by_one = np.stack([weights.wiener(s, mask) for s in stack])
    apart = np.abs(one_by_one[0] - one_by_one[1]).max()
    bounds.within(weights.wiener(stack, mask), one_by_one, 0.01 * apart)


def wiener_error(gram: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Of rows that need an inverse: elimination errs by 3 n roundings of n numbers, and there is a ridge."""
    here = np.flatnonzero(mask & (gram.diagonal() > 0))
    total = gram[np.ix_(here, here)].astype(float)
    norm = np.sqrt(total.diagonal())
    inverse = np.linalg.norm(np.linalg.inv(total / np.outer(norm, norm)), 2)
    n = len(here)
    error = inverse**2 * (_RIDGE + n * bounds.gamma(3 * n + 8)) * norm[:, None] / norm
    found = np.zeros(gram.shape)
    found[np.ix_(here, here)] = bounds.shares(np.eye(n) - noise[here][:, None] * np.linalg.inv(total), error)
    return found


def noisy_groups(seed: int = 0, n: int = 12, d: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Two groups of unrelated directions; clients differ in noise. Rows, and their noise-free directions."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((2, d))[np.arange(n) % 2]
    noise = np.linspace(0.5, 4.0, n)[:, None] * rng.standard_normal((n, d))
    return (true + noise).astype(np.float32), true


def test_wiener_equals_reference_when_the_noise_is_known() -> None:
    rows, _ = noisy_groups()
    gram = reference.gram(rows).astype(np.float32)
    noise = (np.linspace(0.5, 4.0, 12) ** 2 * 4000).astype(np.float32)
    mask = np.arange(12) != 4
    ours = weights.wiener(gram, mask, noise=noise)
    expected = reference.weights.wiener(gram, mask, noise=noise)
    bounds.within(ours, expected, wiener_error(gram, mask, noise))


def test_wiener_finds_the_noise_and_beats_local_only_and_the_average() -> None:
    rows, true = noisy_groups()
    gram = reference.gram(rows).astype(np.float32)
    share = weights.fill_diagonal(
        gram / np.sqrt(np.outer(gram.diagonal(), gram.diagonal())), np.ones(12, bool), rank=2
    )
    np.testing.assert_allclose(share, 1 / (1 + np.linspace(0.5, 4.0, 12) ** 2), atol=0.05)
    errors = {
        name: np.mean((np.asarray(p) @ rows - true) ** 2)
        for name, p in {
            "wiener": weights.wiener(gram, rank=2),
            "local": np.eye(12),
            "all": np.full((12, 12), 1 / 12),
        }.items()
    }
    assert errors["wiener"] < 0.5 * min(errors["local"], errors["all"])


def test_wiener_without_noise_is_local_only_and_survives_duplicates() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 100)).astype(np.float32)
    gram = reference.gram(rows).astype(np.float32)
    alone = weights.wiener(gram, noise=np.zeros(4, np.float32))
    bounds.within(alone, np.eye(4), bounds.shares(np.eye(4)))
    twins = reference.gram(rows[[0, 0, 1, 1]]).astype(np.float32)
    assert np.isfinite(np.asarray(weights.wiener(twins))).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_simplex_projection_is_the_nearest_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = (10 * rng.standard_normal(9)).astype(np.float32)
    nearest = np.asarray(weights.project_simplex(point, np.ones(9, bool)))
    assert nearest.min() >= 0
    rounding = 2 * bounds.gamma(9 + 8) * (2 * np.abs(point).max() + 1)  # as in `allowed`
    bounds.within(nearest.sum(dtype=float), 1, 9 * rounding)
    others = rng.dirichlet(np.ones(9), 2000)
    distance, farther = np.linalg.norm(nearest - point), np.linalg.norm(others - point, axis=1)
    assert (farther >= distance - np.sqrt(9) * rounding).all()


def test_diagnostics_equal_reference() -> None:
    p = np.asarray(weights.fedbip(cosines(1), floor=0.0))
    found, expected = weights.diagnostics(p), reference.weights.diagnostics(p)
    for name, values in expected.items():
        size = {"row_sum": np.abs(p).sum(1)}.get(name, np.abs(values))
        bounds.within(getattr(found, name), values, bounds.gamma(2 * 7 + 8) * size)


def test_settings_can_be_swept_without_compiling_again() -> None:
    similarity = cosines(0)
    weights.softmax(similarity, temperature=0.1)
    before = weights.softmax._cache_size()
    for temperature in (0.2, 0.5, 3.0):
        weights.softmax(similarity, temperature=temperature)
    assert weights.softmax._cache_size() == before


def test_can_be_used_inside_a_jit() -> None:
    similarity = cosines(0)
    inside = jax.jit(lambda s, t: weights.softmax(s, temperature=t))(similarity, 0.3)
    outside = np.asarray(weights.softmax(similarity, temperature=0.3))
    bounds.within(inside, outside, 2 * allowed("softmax", outside))

"""Every weighting against its float64 reference, and the edge cases of its contract."""

import jax
import numpy as np
import pytest
from fedpl_kernels import reference, weights

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
    np.testing.assert_allclose(p, theirs(similarity, mask), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(p[3], np.eye(7)[3])
    for k in absent:
        np.testing.assert_array_equal(p[k], np.eye(7)[k])
        assert not np.delete(p[:, k], k).any()


@pytest.mark.parametrize("absent", [(), (2, 4), tuple(range(7))])
def test_priors_equal_reference(absent: tuple[int, ...]) -> None:
    mask = ~np.isin(np.arange(7), absent)
    theirs = reference.weights
    np.testing.assert_allclose(weights.by_size(SIZES, mask), theirs.by_size(SIZES, mask), atol=1e-6)
    np.testing.assert_allclose(weights.uniform(mask), theirs.by_size(np.ones(7), mask), atol=1e-6)
    np.testing.assert_allclose(weights.clusters(LABELS, mask), theirs.clusters(LABELS, mask), atol=1e-6)
    np.testing.assert_array_equal(weights.identity(mask), np.eye(7))
    p = np.asarray(weights.softmax(cosines(0), mask))
    np.testing.assert_allclose(weights.fixed_self(p, 0.3), theirs.fixed_self(p, 0.3), atol=1e-6)
    ours = weights.blend_prior(p, SIZES, mask, strength=0.25)
    np.testing.assert_allclose(ours, theirs.blend_prior(p, SIZES, mask, strength=0.25), atol=1e-6)


def test_clusters_by_size() -> None:
    row = np.asarray(weights.clusters(LABELS, num_examples=SIZES))[0]
    np.testing.assert_allclose(row, np.where(LABELS == 0, SIZES, 0) / 18, atol=1e-6)


def test_a_vanishing_row_sum_never_gives_unbounded_weights() -> None:
    similarity = np.full((8, 8), -1 / 7, np.float32)
    np.fill_diagonal(similarity, 1)
    for fallback, expected in (("local", np.eye(8)), ("uniform", np.full((8, 8), 0.125))):
        np.testing.assert_allclose(weights.fedbip(similarity, fallback=fallback), expected, atol=1e-6)
    p = np.asarray(weights.fedbip(similarity, fallback="abs"))
    assert p.min() > 0
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)


def test_blocks_are_batched() -> None:
    stack, mask = np.stack([cosines(0), cosines(1)]), np.arange(7) != 6
    for rule in (weights.fedbip, weights.softmax, weights.top_k, weights.simplex_qp, weights.wiener):
        both = rule(stack, mask)
        np.testing.assert_allclose(both, np.stack([rule(s, mask) for s in stack]), rtol=1e-4, atol=1e-5)


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
    np.testing.assert_allclose(ours, reference.weights.wiener(gram, mask, noise=noise), atol=2e-3)


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
    np.testing.assert_allclose(weights.wiener(gram, noise=np.zeros(4, np.float32)), np.eye(4), atol=1e-6)
    twins = reference.gram(rows[[0, 0, 1, 1]]).astype(np.float32)
    assert np.isfinite(np.asarray(weights.wiener(twins))).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_simplex_projection_is_the_nearest_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = (10 * rng.standard_normal(9)).astype(np.float32)
    nearest = np.asarray(weights.project_simplex(point, np.ones(9, bool)))
    assert nearest.min() >= 0
    np.testing.assert_allclose(nearest.sum(), 1, atol=1e-6)
    others = rng.dirichlet(np.ones(9), 2000)
    assert (np.sum((others - point) ** 2, 1) >= np.sum((nearest - point) ** 2) - 1e-4).all()


def test_diagnostics_equal_reference() -> None:
    p = np.asarray(weights.fedbip(cosines(1), floor=0.0))
    found, expected = weights.diagnostics(p), reference.weights.diagnostics(p)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-5)


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
    np.testing.assert_allclose(inside, weights.softmax(similarity, temperature=0.3), atol=1e-6)

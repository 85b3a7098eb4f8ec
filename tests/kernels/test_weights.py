"""Every weighting against its float64 reference, and the edge cases of its contract."""

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

"""Product space: equal to the materialised updates, blind to the gauge, exact for small steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import cosine, lora_delta, lora_gram, pad_rank, reference

from tests import bounds


def factors(n: int, r: int, d_in: int, d_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, r, d_in)).astype(np.float32),
        rng.standard_normal((n, d_out, r)).astype(np.float32),
    )


def allowed(a: np.ndarray, b: np.ndarray, scale: float | np.ndarray = 1.0) -> np.ndarray:
    """A cell is the product of a sum over d_in with one over d_out; r² cells are added.

    Up to eight roundings more: of the factors themselves, and the scales.
    """
    roundings = a.shape[2] + b.shape[1] + a.shape[1] ** 2 + 8
    return bounds.gamma(roundings) * reference.lora_gram(np.abs(a), np.abs(b), scale)


@pytest.mark.parametrize(("n", "r"), [(1, 1), (5, 3), (40, 8)])
def test_equals_the_materialised_updates(n: int, r: int) -> None:
    a, b = factors(n, r, 48, 31)
    scale = np.linspace(0.5, 2.0, n).astype(np.float32)
    expected = reference.lora_gram(a, b, scale)
    bounds.within(lora_gram(a, b, scale), expected, allowed(a, b, scale))


def test_blind_to_the_gauge() -> None:
    a, b = factors(6, 4, 30, 20)
    turn = np.random.default_rng(1).standard_normal((6, 4, 4)) + 3 * np.eye(4)
    turned = np.linalg.solve(turn, a).astype(np.float32), (b @ turn).astype(np.float32)
    exact = reference.lora_gram(a, b)
    error = bounds.normalised(exact, allowed(a, b)) + bounds.normalised(exact, allowed(*turned))
    bounds.within(cosine(lora_gram(*turned)), cosine(lora_gram(a, b)), error)


def test_mixed_ranks_by_zero_padding() -> None:
    pairs = [factors(1, r, 30, 20, seed=r) for r in (2, 5, 3)]
    a, b = pad_rank([p[0][0] for p in pairs], 0), pad_rank([p[1][0] for p in pairs], 1)
    dense = np.stack([(q @ p.astype(float)).ravel() for (p,), (q,) in pairs])
    a, b = np.asarray(a), np.asarray(b)
    bounds.within(lora_gram(a, b), reference.gram(dense), allowed(a, b))
    with pytest.raises(ValueError, match="at least the highest rank 5, got 4"):
        pad_rank([p[0][0] for p in pairs], 0, rank=4)


def test_small_steps_keep_their_digits() -> None:
    a, b = factors(4, 8, 96, 96)
    da, db = factors(4, 8, 96, 96, seed=1)
    after = a + np.float32(1e-4) * da, b + np.float32(1e-4) * db
    exact = np.stack(
        [(np.float64(q) @ p - np.float64(v) @ u).ravel() for p, q, u, v in zip(*after, a, b, strict=True)]
    )
    expected = reference.gram(exact)
    delta = [jnp.asarray(x) for x in (a, b, *after)]
    ours = np.asarray(lora_gram(*lora_delta(*delta)))
    enough = allowed(*map(np.asarray, lora_delta(*delta)))
    bounds.within(ours, expected, enough)
    assert enough.max() < 1e-3 * expected.diagonal().min()
    textbook = lora_gram(np.concatenate([after[0], a], 1), np.concatenate([after[1], -b], 2))
    assert np.abs(np.asarray(textbook) - expected).max() > 10 * enough.max()


def test_absent_and_broken_clients_are_excluded() -> None:
    a, b = factors(5, 2, 10, 10)
    a[3, 0, 0] = np.nan
    result = np.asarray(lora_gram(a, b, mask=np.arange(5) != 1))
    assert not result[[1, 3]].any()
    keep = np.ix_([0, 2, 4], [0, 2, 4])
    few = a[[0, 2, 4]], b[[0, 2, 4]]
    bounds.within(result[keep], reference.lora_gram(*few), allowed(*few))


def test_never_as_large_as_an_update() -> None:
    a, b = jax.ShapeDtypeStruct((16, 4, 4096), jnp.float32), jax.ShapeDtypeStruct((16, 4096, 4), jnp.float32)
    memory = jax.jit(lambda a, b: lora_gram(a, b)).lower(a, b).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4096 * 4096


def test_ranks_must_agree() -> None:
    with pytest.raises(ValueError, match="of one rank"):
        lora_gram(np.ones((2, 3, 5), np.float32), np.ones((2, 5, 4), np.float32))

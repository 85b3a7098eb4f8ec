"""Product space: equal to the materialised updates, blind to the gauge, exact for small steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import cosine, lora_delta, lora_gram, pad_rank, reference


def factors(n: int, r: int, d_in: int, d_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((n, r, d_in)).astype(np.float32),
        rng.standard_normal((n, d_out, r)).astype(np.float32),
    )


@pytest.mark.parametrize(("n", "r"), [(1, 1), (5, 3), (40, 8)])
def test_equals_the_materialised_updates(n: int, r: int) -> None:
    a, b = factors(n, r, 48, 31)
    scale = np.linspace(0.5, 2.0, n).astype(np.float32)
    expected = reference.lora_gram(a, b, scale)
    np.testing.assert_allclose(lora_gram(a, b, scale), expected, atol=1e-5 * expected.diagonal().min())


def test_blind_to_the_gauge() -> None:
    a, b = factors(6, 4, 30, 20)
    turn = np.random.default_rng(1).standard_normal((6, 4, 4)).astype(np.float32) + 3 * np.eye(
        4, dtype=np.float32
    )
    turned = lora_gram(np.linalg.solve(turn, a), b @ turn)
    np.testing.assert_allclose(cosine(turned), cosine(lora_gram(a, b)), atol=1e-5)


def test_mixed_ranks_by_zero_padding() -> None:
    pairs = [factors(1, r, 30, 20, seed=r) for r in (2, 5, 3)]
    a, b = pad_rank([p[0][0] for p in pairs], 0), pad_rank([p[1][0] for p in pairs], 1)
    dense = np.stack([(q @ p).ravel() for (p,), (q,) in pairs])
    np.testing.assert_allclose(lora_gram(a, b), reference.gram(dense), rtol=1e-4, atol=1e-2)
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
    scale = expected.diagonal().min()
    assert np.abs(ours - expected).max() < 1e-4 * scale
    textbook = lora_gram(np.concatenate([after[0], a], 1), np.concatenate([after[1], -b], 2))
    assert np.abs(np.asarray(textbook) - expected).max() > 1e-2 * scale


def test_absent_and_broken_clients_are_excluded() -> None:
    a, b = factors(5, 2, 10, 10)
    a[3, 0, 0] = np.nan
    result = np.asarray(lora_gram(a, b, mask=np.arange(5) != 1))
    assert not result[[1, 3]].any()
    keep = np.ix_([0, 2, 4], [0, 2, 4])
    np.testing.assert_allclose(result[keep], reference.lora_gram(a[[0, 2, 4]], b[[0, 2, 4]]), rtol=1e-4)


def test_never_as_large_as_an_update() -> None:
    a, b = jax.ShapeDtypeStruct((16, 4, 4096), jnp.float32), jax.ShapeDtypeStruct((16, 4096, 4), jnp.float32)
    memory = jax.jit(lambda a, b: lora_gram(a, b)).lower(a, b).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 4096 * 4096


def test_ranks_must_agree() -> None:
    with pytest.raises(ValueError, match="of one rank"):
        lora_gram(np.ones((2, 3, 5), np.float32), np.ones((2, 5, 4), np.float32))

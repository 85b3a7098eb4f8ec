"""Products of few rows by BLAS on JAX's own memory: when, in whose memory, and what stays untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from fedpl_kernels import _gram, _host, _mix, gram, mix, mix_blocks, reference

from tests import bounds


def drawn(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, task vectors, base."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((n, n), (n, d), (n, d)))


@pytest.mark.parametrize(
    ("rows", "precision", "by_host"), [(12, "highest", True), (12, "tf32", False), (128, "highest", False)]
)
def test_only_few_rows_at_full_precision(rows: int, precision: str, by_host: bool) -> None:
    p, x, base = drawn(rows, 301)
    programs = _gram.raw_gram, _mix._onto
    before = [program._cache_size() for program in programs]
    gram(x, precision=precision)
    mix(p, x, base=jnp.array(base), precision=precision)
    assert [program._cache_size() - seen for program, seen in zip(programs, before, strict=True)] == (
        [0, 0] if by_host else [1, 1]
    )


def test_a_trace_is_a_program() -> None:
    p, x, base = drawn(5, 40)
    text = str(jax.make_jaxpr(lambda p, x, b: mix(p, x, base=b) + gram(x)[:, :1])(p, x, base))
    assert "callback" not in text
    assert text.count("dot_general") >= 2


def test_another_array_of_the_same_memory_stays_as_it_is() -> None:
    """An alias of the base keeps its numbers: the sums then go into memory of their own."""
    p, x, base = drawn(6, 5000)
    own = jnp.array(base)
    alias = jax.dlpack.from_dlpack(own, copy=False)
    assert alias.unsafe_buffer_pointer() == own.unsafe_buffer_pointer()
    result = mix(p, x, base=own)
    bounds.within(result, reference.mix(p, x, base=base), bounds.product(p, x, base))
    assert np.array_equal(alias, base)


def test_a_view_for_numpy_that_was_taken_before_stays_as_it_is() -> None:
    p, x, base = drawn(6, 5000)
    own = jnp.array(base)
    view = np.asarray(own)
    mix(p, x, base=own).block_until_ready()
    assert np.array_equal(view, base)


def test_memory_that_torch_lent_is_not_written_to() -> None:
    p, x, base = drawn(6, 5000)
    lent = torch.zeros(6, 5000) + torch.from_numpy(base)
    given = torch.zeros(6, 5000) + torch.from_numpy(x)
    result = mix(p, jax.dlpack.from_dlpack(given, copy=False), base=jax.dlpack.from_dlpack(lent, copy=False))
    bounds.within(result, reference.mix(p, x, base=base), bounds.product(p, x, base))
    assert np.array_equal(lent, base)
    assert np.array_equal(given, x)


@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16])
def test_columns_of_no_range_and_vectors_stored_in_bfloat16(stored: jnp.dtype) -> None:
    _, x, base = drawn(4, 40_000)
    p, ranges = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32), ((5, 39_000), (2, 3))
    kept = jnp.asarray(x, stored)
    numbers = np.asarray(kept, np.float64)
    fresh, onto = mix_blocks(p, kept, ranges), mix_blocks(p, kept, ranges, base=jnp.array(base[:3]))
    for found, before in ((fresh, np.zeros((3, 40_000))), (onto, base[:3])):
        expected = np.array(before, np.float64)
        for weights, (start, stop) in zip(p, ranges, strict=True):
            expected[:, start:stop] += weights.astype(float) @ numbers[:, start:stop]
        allowed = max(bounds.product(w, numbers, before).max() for w in p)
        np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)
        outside = [0, 1, 3, 4, *range(39_000, 40_000)]
        assert np.array_equal(np.asarray(found)[:, outside], before[:, outside])


def test_both_ways_give_the_same_of_broken_rows_and_absent_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    p, x, base = drawn(6, 30_000)
    x[2, 20_000], x[4, 3] = np.nan, np.inf
    p[:, 4], p[:3, 2], present = 0, 0, np.arange(6) != 5
    found = []
    for rows in (_host._ROWS, 0):
        monkeypatch.setattr(_host, "_ROWS", rows)
        found.append((np.asarray(gram(x, present)), np.asarray(mix(p, x, present, base=jnp.array(base)))))
    (one, onto), (other, also) = found
    norms = np.sqrt(np.diag(one))
    bounds.within(one, other, 2 * bounds.gram(bounds.chained(30_000)) * np.outer(norms, norms))
    assert np.array_equal(np.isnan(onto), np.isnan(also))
    assert np.isnan(onto).sum() == 3
    assert np.isnan(onto[3:, 20_000]).all()
    clean = np.where(np.isfinite(x), x, 0)
    where = ~np.isnan(onto)
    bounds.within(onto[where], also[where].astype(float), 2 * bounds.product(p, clean, base)[where])

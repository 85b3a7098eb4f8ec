"""Products of few rows by BLAS on JAX's own memory: when, whose, into what, and what stays untouched."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from fedpl_kernels import (
    _blas,
    _gram,
    _host,
    _mix,
    gram,
    gram_blocks,
    mix,
    mix_blocks,
    reference,
    use_blas_of,
)

from tests import bounds

OWN = _blas.torch  # as it is, before a fixture says whose products are looked at


def drawn(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, task vectors, base."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((n, n), (n, d), (n, d)))


@pytest.mark.parametrize(
    ("rows", "wide", "precision", "by_host"),
    [
        (12, False, "highest", True),
        (12, True, "tf32", False),
        (128, False, "highest", False),
        (128, True, "highest", True),
        (2049, True, "highest", False),
    ],
)
def test_only_few_rows_at_full_precision(
    rows: int, wide: bool, precision: str, by_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_blas, "wide", lambda: wide)
    jax.clear_caches()
    p, x, base = drawn(rows, 301)
    programs = _gram.raw_gram, _mix._onto
    before = [program._cache_size() for program in programs]
    gram(x, precision=precision)
    mix(p, x, base=jnp.array(base), precision=precision)
    assert [program._cache_size() - seen for program, seen in zip(programs, before, strict=True)] == (
        [0, 0] if by_host else [1, 1]
    )


@pytest.mark.parametrize(("ranges", "by_host"), [(64, True), (65, False)])
def test_products_of_many_ranges_are_a_program(
    ranges: int, by_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where those of all of them would be more than those of 2,048 rows in one."""
    monkeypatch.setattr(_blas, "wide", lambda: True)
    _, x, _ = drawn(256, 3 * ranges)
    before = _gram.raw_gram._cache_size()
    found = gram_blocks(x, tuple((3 * i, 3 * i + 3) for i in range(ranges)))
    assert _gram.raw_gram._cache_size() - before == (0 if by_host else 1)
    np.testing.assert_allclose(found[-1], x[:, -3:] @ x[:, -3:].T, rtol=0, atol=1e-4)


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
    for serves in (_host.serves, lambda *_, **__: False):
        monkeypatch.setattr(_host, "serves", serves)
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


def test_torch_is_used_where_a_program_asks_for_it_on_an_intel_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {}
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(_blas, "_asked", [])
    for intel in (True, False):
        monkeypatch.setattr(_blas, "_intel", lambda intel=intel: intel)
        for library in (torch, None):
            use_blas_of(library)
            where[intel, library is torch] = OWN() is torch
    assert where == {(True, True): True, (True, False): False, (False, True): False, (False, False): False}


def test_nobody_who_has_not_asked_gets_other_bits() -> None:
    """fedpl does not ask: a server without torch is to round as one that has it."""
    code = (
        "import sys, torch, fedpl, fedpl.runs.experiment, fedpl.executors; from fedpl_kernels import _blas;"
        "_blas._intel = lambda: True; sys.exit(_blas.torch() is not None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_view_that_may_only_be_read_is_multiplied_without_a_warning() -> None:
    p, x, base = drawn(6, 5000)
    x.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mix(p, x, base=jnp.array(base))
    bounds.within(found, reference.mix(p, x, base=base), bounds.product(p, x, base))


@pytest.mark.parametrize("kind", ["backwards", "mirrored", "shifted", "float64"])
def test_memory_that_lies_otherwise(kind: str) -> None:
    """NumPy's views of any kind are read, and written to."""
    p, x, _ = drawn(5, 700)

    def laid(numbers: np.ndarray) -> np.ndarray:
        if kind == "float64":
            return numbers.astype(np.float64)
        if kind == "shifted":  # by a byte
            room = np.zeros(numbers.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(numbers.shape)
            room[:] = numbers
            return room
        way = (slice(None, None, -1),) if kind == "backwards" else (slice(None), slice(None, None, -1))
        return numbers[way].copy()[way]

    seen, out = laid(x), laid(np.zeros_like(x))
    assert np.array_equal(seen, x)
    bounds.within(
        gram(seen), reference.gram(x), bounds.gram(700) * np.outer(*2 * [np.linalg.norm(x, axis=1)])
    )
    assert mix(p, seen, out=out) is out
    bounds.within(out, reference.mix(p, x), bounds.product(p, x))
    bounds.within(mix(p, seen, finite=True), reference.mix(p, x), bounds.product(p, x))


def test_weights_round_alike_however_they_lie_in_memory() -> None:
    p, x, base = drawn(12, 4999)
    found = []
    for shift in range(4):
        room = np.zeros(144 + shift, np.float32)[shift:].reshape(12, 12)
        room[:] = p
        found.append(np.asarray(mix(room, jnp.asarray(x), base=jnp.array(base), finite=True)))
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("stored", [jnp.float32, jnp.bfloat16])
def test_numbers_known_to_be_finite_give_the_same_in_fewer_passes(
    stored: jnp.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, x, base = drawn(6, 40_000)
    kept, ranges = jnp.asarray(x, stored), ((3, 20_000), (20_000, 39_990))
    numbers = np.asarray(kept, np.float64)
    both = np.stack([p, p.T])
    expected = reference.mix_blocks(both, numbers, ranges, base=base)
    looked: list[int] = []
    monkeypatch.setattr(_blas, "finite", lambda *_: looked.append(1) or True)
    found = mix_blocks(both, kept, ranges, base=jnp.array(base), finite=True)
    assert not looked
    bounds.within(found, expected, bounds.product(np.abs(both).max(0), numbers, base))


def test_huge_numbers_whose_sum_overflows_are_mixed_all_the_same() -> None:
    x = np.full((2, 40), 3e38, np.float32)
    p = np.array([[0.5, 0.0], [0.0, 1.0]], np.float32)
    found = np.asarray(mix(p, x))
    assert np.array_equal(found, np.array([[1.5e38], [3e38]], np.float32) * np.ones((1, 40), np.float32))

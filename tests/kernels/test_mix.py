"""Mixing: equal to float64, linear, in place, and a zero weight means no influence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fedpl_kernels import _mix, mix, mix_blocks, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import bounds

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 60))


def drawn(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, task vectors, base."""
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((n, n), (n, d), (n, d)))


@settings(deadline=None, max_examples=12)
@given(SHAPES, st.integers(1, 70), st.integers(0, 99))
def test_every_target_gives_the_reference(shape: tuple[int, int], block: int, seed: int) -> None:
    p, x, base = drawn(*shape, seed)
    plain, onto = reference.mix(p, x), reference.mix(p, x, base=base)
    allowed = bounds.product(p, x)
    bounds.within(mix(p, x, block=block), plain, allowed)
    bounds.within(mix(p, x, base=jnp.array(base), block=block), onto, bounds.product(p, x, base))
    bounds.within(mix(p, jnp.array(x), donate=True, block=block), plain, allowed)
    out = np.empty_like(x)
    assert mix(p, x, out=out, block=block) is out
    bounds.within(out, plain, allowed)
    own = x.copy()
    bounds.within(mix(p, own, out=own, block=block), plain, allowed)


@settings(deadline=None, max_examples=12)
@given(SHAPES, st.integers(0, 99), st.floats(-3, 3))
def test_linear_in_weights_and_in_vectors(shape: tuple[int, int], seed: int, factor: float) -> None:
    p, x, y = drawn(*shape, seed)
    q = drawn(*shape, seed + 1)[0]
    a = np.float32(factor)
    both = 2 * bounds.product(np.abs(p) + np.abs(a * q), x)
    bounds.within(mix(p + a * q, x), mix(p, x) + a * mix(q, x), both)
    both = 2 * bounds.product(p, np.abs(x) + np.abs(a * y))
    bounds.within(mix(p, x + a * y), mix(p, x) + a * mix(p, y), both)


@pytest.mark.parametrize("precision", ["highest", "tf32", "bf16"])
def test_precision(precision: str) -> None:
    p, x, _ = drawn(40, 3000)
    found, expected = np.asarray(mix(p, x, precision=precision)), reference.mix(p, x)
    bounds.within(found, expected, bounds.product(p, x, inputs=bounds.BF16 if precision == "bf16" else 0.0))
    beyond = np.abs(found - expected).max() > bounds.product(p, x).max()
    assert beyond == (precision == "bf16"), "the policy has no effect"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 3, 6])
def test_a_broken_row_reaches_only_those_who_give_it_weight(value: float, where: int) -> None:
    p, x, base = drawn(7, 130)
    x[where, [5, 129]] = value
    p[:, where] = 0
    p[2, where] = 0.5
    result = np.asarray(mix(p, x, base=jnp.array(base), block=32))
    bad = np.zeros((7, 130), bool)
    bad[2, [5, 129]] = True
    np.testing.assert_array_equal(~np.isfinite(result), bad)
    whole = np.where(np.isfinite(x), x, 0)
    expected, allowed = reference.mix(p, whole, base=base), bounds.product(p, whole, base)
    bounds.within(result[~bad], expected[~bad], allowed[~bad])


def test_absent_clients_have_no_influence_and_keep_their_base() -> None:
    p, x, base = drawn(5, 33)
    p[1] = p[:, 1] = 0
    p[1, 1] = 1
    x[1] = np.nan
    mask = np.arange(5) != 1
    result = np.asarray(mix(p, x, mask, base=jnp.array(base)))
    np.testing.assert_array_equal(result[1], base[1])
    present = np.where(mask[:, None], x, 0)
    bounds.within(result, reference.mix(p, x, mask, base), bounds.product(p, present, base))


def test_ranges_have_their_own_weights_and_leave_other_columns() -> None:
    p, x, base = drawn(6, 200)
    weights, ranges = np.stack([p, -p, p.T]), ((0, 31), (31, 64), (100, 150))
    expected = reference.mix_blocks(weights, x, ranges)
    largest = np.abs(weights).max(0)
    bounds.within(mix_blocks(weights, x, ranges, block=16), expected, bounds.product(largest, x))
    onto = mix_blocks(weights, x, ranges, base=jnp.array(base), block=16)
    expected = reference.mix_blocks(weights, x, ranges, base=base)
    bounds.within(onto, expected, bounds.product(largest, x, base))
    np.testing.assert_array_equal(onto[:, 150:], base[:, 150:])
    np.testing.assert_array_equal(
        mix_blocks(weights, jnp.array(x), ranges, donate=True)[:, 64:100], x[:, 64:100]
    )


def test_weights_need_not_be_square() -> None:
    p, x, _ = drawn(6, 50)
    bounds.within(mix(p[:2], x), reference.mix(p[:2], x), bounds.product(p[:2], x))


def test_donated_buffers_are_used_in_place() -> None:
    p, x, base = drawn(8, 70_000)
    for target in ({"base": jnp.array(base)}, {"donate": True}):
        source = jnp.array(x)
        given_away = target.get("base", source)
        address = given_away.unsafe_buffer_pointer()
        result = mix(p, source, **target)
        assert given_away.is_deleted()
        assert result.unsafe_buffer_pointer() == address


def test_working_memory_is_a_small_constant() -> None:
    big = jax.ShapeDtypeStruct((64, 1 << 20), jnp.float32)
    p = jax.ShapeDtypeStruct((1, 64, 64), jnp.float32)
    lowered = _mix._onto.lower(big, p, np.ones(64, bool), big, "highest", ((0, 1 << 20),), 4096)
    memory = lowered.compile().memory_analysis()
    assert memory.alias_size_in_bytes == 4 * 64 << 20
    assert memory.temp_size_in_bytes < 32 << 20


def test_weights_of_another_round_do_not_compile_again() -> None:
    p, x, base = drawn(5, 77)
    mix(p, x, base=jnp.array(base))
    before = _mix._onto._cache_size()
    mix(2 * p, x, jnp.arange(5) < 2, base=jnp.array(base))
    assert _mix._onto._cache_size() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"donate": True, "out": np.empty((3, 10), np.float32)},
            "at most one of base=, out= and donate=True",
        ),
        ({"weights": np.ones((1, 2, 3), np.float32), "donate": True}, "expected square weights, got"),
        ({"x": np.ones((3, 10), jnp.bfloat16), "donate": True}, "expected float32 x"),
        ({"weights": np.ones((2, 3, 3), np.float32)}, "got 2 for 1 ranges"),
        ({"weights": np.ones((2, 3, 3), np.float32), "boundaries": ((0, 5), (4, 9))}, "do not overlap"),
    ],
)
def test_errors_say_what_was_expected(change: dict, message: str) -> None:
    arguments = {
        "weights": np.ones((1, 3, 3), np.float32),
        "x": np.ones((3, 10), np.float32),
        "boundaries": ((0, 10),),
    }
    with pytest.raises(ValueError, match=message):
        mix_blocks(**(arguments | change))

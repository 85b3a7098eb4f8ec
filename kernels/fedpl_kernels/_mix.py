"""Personalised mixing of task vectors: U = P X, or θ̄ ← θ̄ + P X in place.

Source: FedBip (arXiv 2509.12697), the server step θ̄_i ← θ̄_i + Σ_k p_ik τ_k.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from . import _host
from ._columns import (
    Boundaries,
    Walk,
    all_present,
    check_block,
    check_boundaries,
    cover_at_once,
    covered,
    mix_block,
    on_device,
    platform_of,
    window,
    windows,
)
from ._precision import Precision, check_precision, contract


def mix(
    weights: Float[Array | np.ndarray, "m n"],
    x: Float[Array | np.ndarray, "n d"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    base: Float[Array, "m d"] | None = None,
    precision: Precision = "highest",
    block: int | None = None,
    out: Float[np.ndarray, "m d"] | None = None,
    donate: bool = False,
    finite: bool = False,
) -> Float[Array | np.ndarray, "m d"]:
    """Weighted sums of the rows of `x`, `U_i = (base_i +) Σ_k weights[i, k] x_k`, in float32.

    A zero weight means no influence: a NaN or infinity reaches only the rows that give its row a weight.
    A client outside of `mask` has no influence at all, not even on itself, so its row of `base` stays.

    Where the result lives (at most one of the three; otherwise it is a new array):
        base: its buffer is donated and updated in place; the array passed in is deleted.
        donate: the buffer of `x` is reused (m = n, float32); the array passed in is deleted.
        out: a host array or memory map, filled block by block and returned. It may be `x` itself.

    Args:
        weights: row i tells what client i takes of whom; no unit.
        x: task vectors, float32 or bfloat16.
        mask: which clients have an influence; all of them when None.
        precision: "highest", "tf32" or "bf16"; accumulation is always float32.
        block: columns worked on at a time; None takes the measured default.
        finite: whether every number of `x` is known to be finite: then nobody looks, which is a pass over
            `x` on a CPU. If it is not true, a NaN may reach rows that give its row no weight.

    Raises:
        ValueError: unknown precision, a block below 1, or targets that exclude each other.
    """
    return _mixed(weights, x, ((0, x.shape[1]),), mask, base, precision, block, out, donate, finite)


def mix_blocks(
    weights: Float[Array | np.ndarray, "blocks m n"],
    x: Float[Array | np.ndarray, "n d"],
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    base: Float[Array, "m d"] | None = None,
    precision: Precision = "highest",
    block: int | None = None,
    out: Float[np.ndarray, "m d"] | None = None,
    donate: bool = False,
    finite: bool = False,
) -> Float[Array | np.ndarray, "m d"]:
    """`mix` with one weight matrix for each range of columns [start, stop) (FedBip-L).

    Columns that belong to no range stay what they are in `base`, `out` or a donated `x`; in a new array
    they are zero.

    Raises:
        ValueError: as `mix`; also ranges that overlap, or whose number is not `weights`' first axis.
    """
    return _mixed(weights, x, boundaries, mask, base, precision, block, out, donate, finite)


def _mixed(
    weights: Array | np.ndarray,
    x: Array | np.ndarray,
    boundaries: Boundaries,
    mask: Array | np.ndarray | None,
    base: Array | None,
    precision: Precision,
    block: int | None,
    out: np.ndarray | None,
    donate: bool,
    finite: bool,
) -> Array | np.ndarray:
    """Checks, and one program: for few clients each step beside it would cost as much as the products."""
    check_precision(precision)
    check_block(block)
    check_boundaries(boundaries, x.shape[1])
    check_targets((1, *weights.shape)[-3:], x, boundaries, base, out, donate)
    if _host.serves(max(weights.shape[-2:]), precision, weights, x, mask, base):
        return _host.mixed(weights, x, boundaries, mask, base, block, out, donate, finite)
    block = block or mix_block(max(weights.shape[-2:]), platform_of(x))
    present = all_present(weights.shape[-1]) if mask is None else mask
    if out is not None:
        return _to_host(out, _present(weights, present), x, precision, boundaries, block)
    x = on_device(x)
    if donate:
        return _reuse(x, weights, present, precision, boundaries, block)
    if base is not None:
        return _onto(base, weights, present, x, precision, boundaries, block)
    return _fresh(weights, present, x, precision, boundaries, block)


def _present(weights: Array | np.ndarray, mask: Array | np.ndarray) -> Float[Array, "blocks m n"]:
    """Weights by range, none of them an absent client's."""
    p = jnp.asarray(weights, jnp.float32).reshape(-1, *weights.shape[-2:])
    return jnp.where(jnp.asarray(mask), p, 0.0)


def check_targets(
    shape: tuple[int, ...],
    x: Array | np.ndarray,
    boundaries: Boundaries,
    base: Array | None,
    out: np.ndarray | None,
    donate: bool,
) -> None:
    """Raises ValueError with all that is wrong about weights and target."""
    problems = []
    if (base is not None) + (out is not None) + donate > 1:
        problems.append("expected at most one of base=, out= and donate=True: each is a place for the result")
    if donate and shape[-2] != shape[-1]:
        problems.append(f"donate: expected square weights, got {shape[-2:]}; the result takes the place of x")
    if donate and x.dtype != np.float32:
        problems.append(f"donate: expected float32 x, the type of the result, got {x.dtype}")
    if len(boundaries) != shape[0]:
        problems.append(f"expected one weight matrix a range, got {shape[0]} for {len(boundaries)} ranges")
    if any(before[1] > after[0] for before, after in pairwise(sorted(boundaries))):
        problems.append(f"boundaries: expected ranges that do not overlap, got {boundaries}")
    if problems:
        raise ValueError("; ".join(problems))


def product(
    p: Float[Array, "m n"], columns: Float[Array, "n c"], precision: Precision
) -> Float[Array, "m c"]:
    """P X for one window of columns, where zero times NaN is zero.

    Any non-finite entry of X makes its column of a plain product non-finite in every row, so one row of
    the result is a witness for the whole window, and the guarded product runs only when it must. The loop
    of at most one turn does not copy, as a conditional would.
    """

    def guarded(_: tuple[Array, Array]) -> tuple[Array, Array]:
        finite = jnp.isfinite(columns)
        clean = contract("mn,nc->mc", p, jnp.where(finite, columns, 0), precision)
        touched = contract(
            "mn,nc->mc", (p != 0).astype(jnp.float32), (~finite).astype(jnp.float32), "highest"
        )
        return jnp.array(False), jnp.where(touched > 0, jnp.nan, clean)

    plain = contract("mn,nc->mc", p, columns, precision)
    suspect = ~jnp.isfinite(plain[0]).all()
    return lax.while_loop(lambda state: state[0], guarded, (suspect, plain))[1]


def _fill(
    target: Array,
    p: Array,
    x: Array | None,
    precision: Precision,
    walk: Walk,
    add: bool,
) -> Array:
    """Writes the products into `target`, window by window; reads from `target` itself when `x` is None."""
    width, cut, steps, start, low, high, owner = walk

    def step(k: Array | int, target: Array) -> Array:
        source, at = (target if x is None else x), (0, start[k])
        new = product(p[owner[k]], window(source, *at, (p.shape[2], width)), precision)
        if add or cut:
            old = lax.dynamic_slice(target, at, (p.shape[1], width))
            column = start[k] + jnp.arange(width)
            new = old + new if add else new
            new = jnp.where((low[k] <= column) & (column < high[k]), new, old) if cut else new
        return lax.dynamic_update_slice(target, new, at)

    return lax.fori_loop(0, steps, step, target)


def _fill_all(
    target: Array, p: Array, x: Array | None, precision: Precision, walks: list[Walk], add: bool
) -> Array:
    """`_fill` walk after walk. The barrier keeps XLA from reading, for the next walk, what was there before
    the last one: that is the same, but takes a copy of the whole target."""
    for walk in walks:
        target = lax.optimization_barrier(_fill(target, p, x, precision, walk, add))
    return target


def local_mix(
    base: Array | None, p: Array, x: Array, precision: Precision, boundaries: Boundaries, block: int
) -> Array:
    """The traced body of a mix onto `base`, or into a new array."""
    walks = cover_at_once(boundaries, x.shape[1], block)
    return walked_mix(base, p, x, precision, walks, covered(boundaries, x.shape[1]))


def walked_mix(
    base: Array | None, p: Array, x: Array, precision: Precision, walks: list[Walk], covered: bool
) -> Array:
    """`local_mix` for windows that may be known to the device only; `covered` when they leave no column."""
    target = base
    if target is None:
        target = (lax.empty if covered else jnp.zeros)((p.shape[1], x.shape[1]), jnp.float32)
    return _fill_all(target, p, x, precision, walks, add=base is not None)


_STATIC = ("precision", "boundaries", "block")


@partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)
def _onto(
    base: Array,
    weights: Array,
    mask: Array,
    x: Array,
    precision: Precision,
    boundaries: Boundaries,
    block: int,
) -> Array:
    return local_mix(base, _present(weights, mask), x, precision, boundaries, block)


@partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)
def _reuse(
    x: Array, weights: Array, mask: Array, precision: Precision, boundaries: Boundaries, block: int
) -> Array:
    walks = cover_at_once(boundaries, x.shape[1], block)
    return _fill_all(x, _present(weights, mask), None, precision, walks, add=False)


@partial(jax.jit, static_argnames=_STATIC)
def _fresh(
    weights: Array, mask: Array, x: Array, precision: Precision, boundaries: Boundaries, block: int
) -> Array:
    return local_mix(None, _present(weights, mask), x, precision, boundaries, block)


_window_product = jax.jit(product, static_argnames="precision")


def _to_host(
    out: np.ndarray, p: Array, x: Array | np.ndarray, precision: Precision, boundaries: Boundaries, block: int
) -> np.ndarray:
    """Window by window into `out`. A window is copied before it is written, so `out` may be `x`."""
    plan = windows(boundaries, x.shape[1], block)
    for start, low, high, owner in zip(*plan[1:], strict=True):
        columns = jnp.array(x[:, start : start + plan.width])
        new = _window_product(p[owner], columns, precision)
        out[:, low:high] = np.asarray(new)[:, low - start : high - start]
    return out

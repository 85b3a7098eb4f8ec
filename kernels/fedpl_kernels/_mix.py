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

from ._gram import Boundaries, check_boundaries
from ._precision import Precision, check_precision, contract

_DEFAULT_BLOCK = 16_384


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
) -> Float[Array | np.ndarray, "m d"]:
    """Weighted sums of the rows of `x`, `U_i = (base_i +) Σ_k weights[i, k] x_k`, in float32.

    A zero weight means no influence: a NaN or infinity reaches only the rows that give its row a weight.
    A client outside of `mask` has no influence at all, not even on itself, so its row of `base` stays.

    Where the result lives (at most one of the three; otherwise it is a new array):
        base: its buffer is donated and updated in place; the array passed in is deleted.
        donate: the buffer of `x` is reused (m = n, float32); the array passed in is deleted.
        out: a host array or memory map, filled block by block and returned. It may be `x` itself.

    Raises:
        ValueError: unknown precision, a block below 1, or a combination of targets that excludes itself.
    """
    return mix_blocks(
        jnp.asarray(weights)[None],
        x,
        ((0, x.shape[1]),),
        mask,
        base=base,
        precision=precision,
        block=block,
        out=out,
        donate=donate,
    )


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
) -> Float[Array | np.ndarray, "m d"]:
    """`mix` with one weight matrix for each range of columns [start, stop) (FedBip-L).

    Columns that belong to no range are those of `base`, or zero without one.

    Raises:
        ValueError: as `mix`; also ranges that overlap, or whose number is not `weights`' first axis.
    """
    check_precision(precision)
    check_boundaries(boundaries, x.shape[1])
    check_targets(weights, x, boundaries, base, out, donate, block)
    p = jnp.asarray(weights, jnp.float32)
    if mask is not None:
        p = jnp.where(jnp.asarray(mask), p, 0.0)
    size = block or _DEFAULT_BLOCK
    if out is not None:
        return _to_host(p, x, boundaries, precision, size, out)
    if donate:
        return _reuse(jnp.asarray(x), p, precision, boundaries, size)
    if base is None:
        return _fresh(p, jnp.asarray(x), precision, boundaries, size)
    return _onto(base, p, jnp.asarray(x), precision, boundaries, size)


def check_targets(weights, x, boundaries, base, out, donate, block) -> None:  # type: ignore[no-untyped-def]
    """Raises ValueError with all that is wrong about where a mix should go."""
    problems = []
    if block is not None and block < 1:
        problems.append(f"block: expected at least 1 column, got {block}")
    if (base is not None) + (out is not None) + donate > 1:
        problems.append("expected at most one of base=, out= and donate=True: each is a place for the result")
    if donate and weights.shape[-2] != weights.shape[-1]:
        problems.append(
            f"donate: expected square weights, got {weights.shape[-2:]}: the result has x's shape"
        )
    if donate and x.dtype != np.float32:
        problems.append(f"donate: expected float32 x, the result's type, got {x.dtype}")
    if len(boundaries) != weights.shape[0]:
        problems.append(
            f"expected one weight matrix a range: {len(boundaries)} ranges, {weights.shape[0]} matrices"
        )
    ordered = sorted(boundaries)
    if any(a[1] > b[0] for a, b in pairwise(ordered)):
        problems.append(f"boundaries: expected ranges that do not overlap, got {boundaries}")
    if problems:
        raise ValueError("; ".join(problems))


def product(
    p: Float[Array, "m n"], columns: Float[Array, "n c"], precision: Precision
) -> Float[Array, "m c"]:
    """P X for one block of columns, where zero times NaN is zero.

    Any non-finite entry of X makes its column of a plain product non-finite in every row, so one row of
    the result is a witness for the whole block, and the guarded product runs only when it must.
    """
    plain = contract("mn,nc->mc", p, columns, precision)

    def guarded() -> Array:
        finite = jnp.isfinite(columns)
        clean = contract("mn,nc->mc", p, jnp.where(finite, columns, 0), precision)
        touched = contract(
            "mn,nc->mc", (p != 0).astype(jnp.float32), (~finite).astype(jnp.float32), "highest"
        )
        return jnp.where(touched > 0, jnp.nan, clean)

    return lax.cond(jnp.isfinite(plain[0]).all(), lambda: plain, guarded)


def _steps(boundaries: Boundaries, block: int) -> list[tuple[int, int, int, int]]:
    """(range, first column, columns a step, steps): full steps first, then the rest of each range."""
    plan = []
    for index, (start, stop) in enumerate(boundaries):
        full = (stop - start) // block
        if full:
            plan.append((index, start, block, full))
        if start + full * block < stop:
            plan.append((index, start + full * block, stop - start - full * block, 1))
    return plan


def _fill(
    target: Array,
    p: Array,
    x: Array | None,
    precision: Precision,
    boundaries: Boundaries,
    block: int,
    add: bool,
) -> Array:
    """Writes the products into `target`; reads from `target` itself when `x` is None."""
    for index, first, width, count in _steps(boundaries, block):

        def step(k: Array, acc: Array, index=index, first=first, width=width) -> Array:  # type: ignore[no-untyped-def]
            at = (0, first + k * width)
            source = acc if x is None else x
            new = product(p[index], lax.dynamic_slice(source, at, (source.shape[0], width)), precision)
            if add:
                new = new + lax.dynamic_slice(acc, at, (acc.shape[0], width))
            return lax.dynamic_update_slice(acc, new, at)

        target = lax.fori_loop(0, count, step, target)
    return target


_STATIC = ("precision", "boundaries", "block")


@partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)
def _onto(base: Array, p: Array, x: Array, precision: Precision, boundaries: Boundaries, block: int) -> Array:
    return _fill(base, p, x, precision, boundaries, block, add=True)


@partial(jax.jit, static_argnames=_STATIC, donate_argnums=0)
def _reuse(x: Array, p: Array, precision: Precision, boundaries: Boundaries, block: int) -> Array:
    return _fill(x, p, None, precision, boundaries, block, add=False)


@partial(jax.jit, static_argnames=_STATIC)
def _fresh(p: Array, x: Array, precision: Precision, boundaries: Boundaries, block: int) -> Array:
    empty = jnp.zeros((p.shape[1], x.shape[1]), jnp.float32)
    return _fill(empty, p, x, precision, boundaries, block, add=False)


_block_product = jax.jit(product, static_argnames="precision")


def _to_host(
    p: Array, x: Array | np.ndarray, boundaries: Boundaries, precision: Precision, block: int, out: np.ndarray
) -> np.ndarray:
    """Column block by column block into `out`; a block is read before it is written, so out may be x."""
    for index, first, width, count in _steps(boundaries, block):
        for start in range(first, first + width * count, width):
            columns = jnp.asarray(np.array(x[:, start : start + width]))
            out[:, start : start + width] = _block_product(p[index], columns, precision)
    return out

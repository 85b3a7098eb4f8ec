"""Pairwise inner products of task vectors: G = X Xᵀ, whole or per column block.

Source: the similarity of FedBip (arXiv 2509.12697) and FedBip-L starts from these products.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from ._precision import Precision, check_precision, contract

Boundaries = tuple[tuple[int, int], ...]

# Columns a step works on. One product over all columns of a wide X is several times slower on a CPU.
_DEFAULT_BLOCK = 16_384


def gram(
    x: Float[Array | np.ndarray, "n d"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
    block: int | None = None,
) -> Float[Array, "n n"]:
    """Inner products of all pairs of rows, G[i, j] = ⟨x_i, x_j⟩, in float32.

    Args:
        x: task vectors, one row a client; float32 or bfloat16.
        mask: which clients are present; all of them when None.
        precision: "highest", "tf32" or "bf16"; accumulation is always float32.
        block: columns worked on at a time; None takes the measured default.

    Returns:
        A symmetric matrix in the squared unit of `x`. Rows and columns of absent clients are zero, and so
        are those of clients whose squared norm is not finite (a NaN or infinity in the row, or overflow):
        `usable_rows` tells which are left.

    Raises:
        ValueError: unknown precision, or a block below 1.
    """
    check_precision(precision)
    if block is not None and block < 1:
        raise ValueError(f"block: expected at least 1 column, got {block}; leave it out for the default")
    return _gram(jnp.asarray(x), _presence(mask, x.shape[0]), precision, block or _DEFAULT_BLOCK)


def gram_blocks(
    x: Float[Array | np.ndarray, "n d"],
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "blocks n n"]:
    """`gram` of each range of columns [start, stop), in one pass over `x` (FedBip-L).

    A client whose row is not finite in any of the blocks is excluded from all of them.

    Raises:
        ValueError: a range that is empty, reversed or outside of the columns.
    """
    check_precision(precision)
    check_boundaries(boundaries, x.shape[1])
    return _gram_blocks(jnp.asarray(x), _presence(mask, x.shape[0]), precision, boundaries)


def usable_rows(
    gram: Float[Array, "*blocks n n"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> Bool[Array, "*blocks n"]:
    """Clients that can be compared: present, finite and not zero (trap: LoRA starts with B = 0)."""
    diagonal = jnp.diagonal(gram, axis1=-2, axis2=-1)
    usable = jnp.isfinite(diagonal) & (diagonal >= jnp.finfo(jnp.float32).tiny)
    return usable if mask is None else usable & mask


def check_boundaries(boundaries: Boundaries, width: int) -> None:
    """Raises ValueError unless every column range is non-empty and lies within `width` columns."""
    bad = [pair for pair in boundaries if not 0 <= pair[0] < pair[1] <= width]
    if bad or not boundaries:
        raise ValueError(f"boundaries: expected ranges 0 <= start < stop <= {width}, got {bad or 'none'}")


def _presence(mask: Array | np.ndarray | None, n: int) -> Array:
    return jnp.ones(n, bool) if mask is None else jnp.asarray(mask)


def _products(x: Array, start: int, stop: int, precision: Precision, block: int) -> Array:
    """Unmasked Gram of the columns [start, stop), summed over steps of `block` columns."""

    def of(columns: Array) -> Array:
        return contract("id,jd->ij", columns, columns, precision)

    block, n = min(block, stop - start), x.shape[0]
    steps = (stop - start) // block

    def step(k: Array, total: Array) -> Array:
        return total + of(lax.dynamic_slice(x, (0, start + k * block), (n, block)))

    total = lax.fori_loop(0, steps, step, jnp.zeros((n, n), jnp.float32))
    rest = start + steps * block
    return total if rest == stop else total + of(x[:, rest:stop])


def exclude(products: Float[Array, "*blocks n n"], mask: Bool[Array, " n"]) -> Float[Array, "*blocks n n"]:
    """Zeroes the rows and columns of absent and of non-finite clients.

    A non-finite entry of a row reaches that row and column of the Gram matrix only, and always its
    diagonal: so the test costs O(n), and no pass over X.
    """
    finite = jnp.isfinite(jnp.diagonal(products, axis1=-2, axis2=-1)).reshape(-1, mask.shape[0]).all(0) & mask
    return jnp.where(finite[:, None] & finite[None, :], products, 0.0)


@partial(jax.jit, static_argnames=("precision", "block"))
def _gram(x: Array, mask: Array, precision: Precision, block: int) -> Array:
    return exclude(_products(x, 0, x.shape[1], precision, block), mask)


@partial(jax.jit, static_argnames=("precision", "boundaries"))
def _gram_blocks(x: Array, mask: Array, precision: Precision, boundaries: Boundaries) -> Array:
    parts = [_products(x, start, stop, precision, _DEFAULT_BLOCK) for start, stop in boundaries]
    return exclude(jnp.stack(parts), mask)

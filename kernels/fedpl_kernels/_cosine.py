"""Cosine similarity from inner products: O(n²), after the Gram matrix has been paid for."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._columns import Boundaries
from ._gram import gram_blocks, usable_rows
from ._precision import Precision


@jax.jit
def cosine(
    gram: Float[Array | np.ndarray, "*blocks n n"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> Float[Array, "*blocks n n"]:
    """cos(τ_i, τ_j) = G_ij / √(G_ii G_jj), clipped to [-1, 1].

    Rows without a direction (absent, zero or non-finite) are 0 everywhere, their own diagonal included;
    every other diagonal entry is exactly 1. So `diagonal > 0` tells who can be compared.
    """
    gram = jnp.asarray(gram)
    usable = usable_rows(gram, mask)
    diagonal = jnp.diagonal(gram, axis1=-2, axis2=-1)
    inverse = jnp.where(usable, jax.lax.rsqrt(jnp.where(usable, diagonal, 1.0)), 0.0)
    pair = usable[..., :, None] & usable[..., None, :]
    row, column = inverse[..., :, None], inverse[..., None, :]
    # One factor after the other, as the product of two could underflow; the larger first, for symmetry.
    scaled = jnp.where(pair, gram, 0.0) * jnp.maximum(row, column) * jnp.minimum(row, column)
    eye = jnp.eye(gram.shape[-1], dtype=bool)
    return jnp.where(eye, jnp.where(usable, 1.0, 0.0)[..., None], jnp.clip(scaled, -1.0, 1.0))


def cosine_blocks(
    x: Float[Array | np.ndarray, "n d"],
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "blocks n n"]:
    """`cosine` of each range of columns [start, stop) in one pass over `x`; see `gram_blocks`."""
    return cosine(gram_blocks(x, boundaries, mask, precision=precision), mask)

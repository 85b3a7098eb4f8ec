"""Sketched task vectors for very many clients: O(n d + n² m) instead of O(n² d), with an error bar.

A count-sketch (Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009 for inner products): every column
gets a random sign and one of m buckets, and inner products keep their value on average. The buckets are
dealt by a random rotation for every run of m columns, so that no column needs an index of its own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Key, UInt32

from ._columns import window
from ._gram import gram


class Sketch(NamedTuple):
    """`vectors`, their `gram`, and the `standard_error` of each of its entries; unit of x squared."""

    vectors: Float[Array, "n dim"]
    gram: Float[Array, "n n"]
    standard_error: Float[Array, "n n"]


def sketch(x: Float[Array | np.ndarray, "n d"], dim: int, key: Key[Array, ""] | UInt32[Array, "2"]) -> Sketch:
    """Inner products of the rows of `x` estimated from `dim` numbers a row, without bias.

    The variance of an entry is at most (G_ii G_jj + G_ij²) / dim: a cosine near 0 is known to about
    1 / √dim. Both are evaluated at the estimate. Diagonal entries vary by at most 2 G_ii² / dim.

    Raises:
        ValueError: a dim below 1 or above the number of columns (then `gram` is exact and cheaper).
    """
    if not 1 <= dim <= x.shape[1]:
        raise ValueError(f"dim: expected 1 to {x.shape[1]} (the columns of x), got {dim}")
    vectors = _compress(jnp.asarray(x), key, dim)
    products = gram(vectors)
    energy = jnp.diagonal(products)
    error = jnp.sqrt((energy[:, None] * energy[None, :] + products**2) / dim)
    return Sketch(vectors, products, error)


@partial(jax.jit, static_argnames="dim")
def _compress(x: Array, key: Array, dim: int) -> Array:
    n, d = x.shape
    steps = -(-d // dim)

    def step(k: Array, total: Array) -> Array:
        start = jnp.minimum(k * dim, d - dim)  # the last run reaches back; columns met before do not count
        sign_key, turn_key = jax.random.split(jax.random.fold_in(key, k))
        sign = jax.random.rademacher(sign_key, (dim,), jnp.float32)
        fresh = start + jnp.arange(dim) >= k * dim
        run = window(x, 0, start, (n, dim)).astype(jnp.float32)
        return total + jnp.roll(
            run * jnp.where(fresh, sign, 0.0), jax.random.randint(turn_key, (), 0, dim), axis=1
        )

    return lax.fori_loop(0, steps, step, jnp.zeros((n, dim), jnp.float32))

"""Squared distances between task vectors, with a statement of how far they can be trusted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


class Distances(NamedTuple):
    """`squared` distances, and an upper estimate of their absolute rounding `error`; unit of x squared."""

    squared: Float[Array, "*blocks n n"]
    error: Float[Array, "*blocks n n"]


@jax.jit
def squared_distances(
    gram: Float[Array | np.ndarray, "*blocks n n"], relative_error: float | Float[Array, ""] = 1e-6
) -> Distances:
    """‖x_i - x_j‖² = G_ii + G_jj - 2 G_ij, never negative, 0 on the diagonal.

    The difference cancels for near-parallel rows: where `squared` is not well above `error`, only "closer
    than that" is known. So use it on task vectors, which are the differences, and never on the weights
    they came from: two models that differ by 1e-4 of their norm are at distance 0 in float32.

    Args:
        gram: inner products from `gram`.
        relative_error: rounding of the products relative to the two norms: 1e-6 covers "highest" and "tf32"
            on CPU, 1e-3 "tf32" on a GPU, 4e-3 "bf16" (see the error table of the benchmark).
    """
    gram = jnp.asarray(gram)
    energy = jnp.diagonal(gram, axis1=-2, axis2=-1)
    both = energy[..., :, None] + energy[..., None, :]
    apart = ~jnp.eye(gram.shape[-1], dtype=bool)
    return Distances(
        squared=jnp.where(apart, jnp.maximum(both - 2.0 * gram, 0.0), 0.0),
        error=jnp.where(apart, 2.0 * relative_error * both, 0.0),
    )

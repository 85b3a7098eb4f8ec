"""What to log about a weight matrix before trusting it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


class WeightDiagnostics(NamedTuple):
    """One number a row: see `diagnostics`."""

    row_sum: Float[Array, "*blocks n"]
    absolute_sum: Float[Array, "*blocks n"]
    effective_neighbours: Float[Array, "*blocks n"]
    self_weight: Float[Array, "*blocks n"]


@jax.jit
def diagnostics(weights: Float[Array | np.ndarray, "*blocks n n"]) -> WeightDiagnostics:
    """Row sum, Σ|p| (above 1: updates are subtracted), 1/Σp² (clients that count) and p_ii of every row.

    A row of zeros has 0 effective neighbours.
    """
    weights = jnp.asarray(weights)
    squares = jnp.sum(weights**2, axis=-1)
    return WeightDiagnostics(
        row_sum=weights.sum(-1),
        absolute_sum=jnp.abs(weights).sum(-1),
        effective_neighbours=jnp.where(squares > 0, 1.0 / jnp.where(squares > 0, squares, 1.0), 0.0),
        self_weight=jnp.diagonal(weights, axis1=-2, axis2=-1),
    )

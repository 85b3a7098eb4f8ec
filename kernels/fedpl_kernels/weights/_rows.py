"""The row rules every weighting shares: who takes part, and what a row does when it cannot be normalised."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

Scalar = float | int | Float[Array, ""]
Mask = Bool[Array | np.ndarray, "*#blocks n"] | None


def participants(
    similarity: Float[Array | np.ndarray, "*blocks n n"], mask: Bool[Array | np.ndarray, "*#blocks n"] | None
) -> Bool[Array, "*blocks n"]:
    """Clients that are present and have a direction."""
    usable = jnp.diagonal(jnp.asarray(similarity), axis1=-2, axis2=-1) > 0
    return usable if mask is None else usable & jnp.asarray(mask)


def own_row(weights: Array, keep: Bool[Array, "*blocks n"]) -> Array:
    """Rows outside of `keep` become identity rows."""
    return jnp.where(keep[..., None], weights, jnp.eye(weights.shape[-1], dtype=weights.dtype))


def normalise(raw: Array, present: Bool[Array, "*blocks n"], floor: Scalar = 0.0) -> Array:
    """Divides rows by their sums; absent clients, and rows whose sum is not above `floor`, keep their own."""
    raw = jnp.where(present[..., None, :], raw, 0.0)
    total = raw.sum(-1)
    good = present & (total > floor)
    return own_row(raw / jnp.where(good, total, 1.0)[..., None], good)

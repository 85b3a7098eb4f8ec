"""Weights that few hostile clients cannot steer far."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._rows import Scalar, own_row, participants


@jax.jit
def trim(
    similarity: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    share: Scalar = 0.1,
) -> Float[Array, "*blocks n n"]:
    """Similarities in which each row's most and least similar others count as orthogonal.

    Of the m present others of a row, floor(share · m) at each end become 0; oneself is never trimmed.

    Args:
        similarity: as for the weightings.
        mask: which clients are present.
        share: trimmed at each end, below 0.5.
    """
    similarity = jnp.asarray(similarity)
    present = participants(similarity, mask)
    eye = jnp.eye(similarity.shape[-1], dtype=bool)
    others = present[..., :, None] & present[..., None, :] & ~eye
    ordered = jnp.argsort(jnp.where(others, similarity, jnp.inf), axis=-1, stable=True)
    rank = jnp.argsort(ordered, axis=-1, stable=True)
    count = others.sum(-1, keepdims=True)
    cut = jnp.floor(share * count + 1e-6)
    kept = (rank >= cut) & (rank < count - cut)
    return jnp.where(others & ~kept, 0.0, similarity)


@jax.jit
def krum(
    squared: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    hostile: Scalar = 0.2,
) -> Float[Array, "*blocks n n"]:
    """Multi-Krum: the plain average of those whose nearest others are nearest, the same row for all.

    With n present and f = floor(hostile · n), a client's score is the sum of its n - f - 2 smallest squared
    distances to others; the n - f of lowest score are averaged.

    Args:
        squared: squared distances of the task vectors.
        mask: which clients are present.
        hostile: share of clients to be prepared for.

    Source: Blanchard et al., NeurIPS 2017.
    """
    squared = jnp.asarray(squared)
    present = jnp.ones(squared.shape[:-1], bool) if mask is None else jnp.asarray(mask)
    present = jnp.broadcast_to(present, squared.shape[:-1])
    count = present.sum(-1, keepdims=True)
    bad = jnp.floor(hostile * count + 1e-6)
    eye = jnp.eye(squared.shape[-1], dtype=bool)
    others = present[..., :, None] & present[..., None, :] & ~eye
    ordered = jnp.sort(jnp.where(others, squared, jnp.inf), axis=-1)
    near = jnp.arange(squared.shape[-1]) < jnp.maximum(count - bad - 2, 1)[..., None]
    score = jnp.where(near & jnp.isfinite(ordered), ordered, 0.0).sum(-1)
    rank = jnp.argsort(jnp.argsort(jnp.where(present, score, jnp.inf), axis=-1, stable=True), axis=-1)
    chosen = present & (rank < count - bad)
    row = chosen / jnp.maximum(chosen.sum(-1, keepdims=True), 1)
    return own_row(jnp.broadcast_to(row[..., None, :], squared.shape), present)

"""Weightings that sharpen or select neighbours by their similarity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._rows import Scalar, normalise, own_row, participants


@jax.jit
def softmax(
    similarity: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    temperature: Scalar = 0.1,
) -> Float[Array, "*blocks n n"]:
    """p_ik ∝ exp(s_ik / temperature) over the present; temperature in the unit of `similarity`, > 0.

    Temperatures in use: 0.1 (pFedGraph's FedAMP), 0.5 (FedMosaic's RELA).
    """
    present = participants(similarity, mask)
    logits = jnp.where(present[..., None, :], jnp.asarray(similarity) / temperature, -jnp.inf)
    # An absent row has no finite logit when nobody is present: give it one, it is replaced below.
    logits = jnp.where(present[..., :, None], logits, 0.0)
    return own_row(jax.nn.softmax(logits, axis=-1), present)


@jax.jit
def relu(
    similarity: Float[Array | np.ndarray, "*blocks n n"], mask: Bool[Array | np.ndarray, "..."] | None = None
) -> Float[Array, "*blocks n n"]:
    """p_ik ∝ max(s_ik, 0); a row with no positive entry keeps its own."""
    return normalise(jnp.maximum(jnp.asarray(similarity), 0.0), participants(similarity, mask))


@jax.jit
def threshold(
    similarity: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    minimum: Scalar = 0.0,
) -> Float[Array, "*blocks n n"]:
    """As `relu`, over the neighbours of similarity >= `minimum` only; oneself always counts."""
    similarity = jnp.asarray(similarity)
    kept = (similarity >= minimum) | jnp.eye(similarity.shape[-1], dtype=bool)
    return normalise(jnp.where(kept, jnp.maximum(similarity, 0.0), 0.0), participants(similarity, mask))


@partial(jax.jit, static_argnames="k")
def top_k(
    similarity: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    k: int = 3,
) -> Float[Array, "*blocks n n"]:
    """As `relu`, over the `k` most similar others and oneself; equal similarities: the lower index first."""
    similarity = jnp.asarray(similarity)
    present = participants(similarity, mask)
    eye = jnp.eye(similarity.shape[-1], dtype=bool)
    others = jnp.where(present[..., None, :] & ~eye, similarity, -jnp.inf)
    order = jnp.argsort(-others, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    return normalise(jnp.where((rank < k) | eye, jnp.maximum(similarity, 0.0), 0.0), present)

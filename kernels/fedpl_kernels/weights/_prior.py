"""Weightings that look at who is there, not at task vectors; and the ones that blend them in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Num

from ._rows import Scalar, normalise, own_row


@jax.jit
def identity(mask: Bool[Array | np.ndarray, "*blocks n"]) -> Float[Array, "*blocks n n"]:
    """Local only: every client keeps its own update."""
    mask = jnp.asarray(mask)
    return own_row(jnp.zeros((*mask.shape, mask.shape[-1]), jnp.float32), jnp.zeros_like(mask))


@jax.jit
def uniform(mask: Bool[Array | np.ndarray, "*blocks n"]) -> Float[Array, "*blocks n n"]:
    """The plain average of the present clients, the same row for each of them."""
    return by_size(jnp.ones(mask.shape, jnp.float32), mask)


@jax.jit
def by_size(
    num_examples: Num[Array | np.ndarray, "*blocks n"],
    mask: Bool[Array | np.ndarray, "*blocks n"] | None = None,
) -> Float[Array, "*blocks n n"]:
    """FedAvg (McMahan et al., AISTATS 2017): p_ik = n_k / Σ_j n_j over the present, in examples."""
    sizes = jnp.asarray(num_examples, jnp.float32)
    present = jnp.ones(sizes.shape, bool) if mask is None else jnp.asarray(mask)
    return normalise(jnp.broadcast_to(sizes[..., None, :], (*sizes.shape, sizes.shape[-1])), present)


@jax.jit
def clusters(
    labels: Int[Array | np.ndarray, "*blocks n"],
    mask: Bool[Array | np.ndarray, "*blocks n"] | None = None,
    *,
    num_examples: Num[Array | np.ndarray, "*blocks n"] | None = None,
) -> Float[Array, "*blocks n n"]:
    """The average over the present clients of the same label, by size when `num_examples` is given."""
    labels = jnp.asarray(labels)
    present = jnp.ones(labels.shape, bool) if mask is None else jnp.asarray(mask)
    same = (labels[..., :, None] == labels[..., None, :]).astype(jnp.float32)
    sizes = 1.0 if num_examples is None else jnp.asarray(num_examples, jnp.float32)[..., None, :]
    return normalise(same * sizes, present)


@jax.jit
def fixed_self(
    weights: Float[Array | np.ndarray, "*blocks n n"], self_weight: Scalar
) -> Float[Array, "*blocks n n"]:
    """Sets p_ii to `self_weight` and scales the others to the rest (pFedGraph's FedAMP baseline: 0.3).

    A row whose others do not sum to a positive number has nobody to give the rest to and keeps its own.
    """
    weights = jnp.asarray(weights)
    eye = jnp.eye(weights.shape[-1], dtype=bool)
    others = jnp.where(eye, 0.0, weights)
    total = others.sum(-1, keepdims=True)
    shared = total > jnp.finfo(weights.dtype).tiny
    scaled = others / jnp.where(shared, total, 1.0) * (1.0 - self_weight)
    return own_row(jnp.where(eye, self_weight, scaled), shared[..., 0])


@jax.jit
def blend_prior(
    weights: Float[Array | np.ndarray, "*blocks n n"],
    prior: Num[Array | np.ndarray, " n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    strength: Scalar = 0.5,
) -> Float[Array, "*blocks n n"]:
    """(1 - strength) P + strength · prior / Σ prior over the present; 0 keeps P, 1 gives FedAvg."""
    weights = jnp.asarray(weights)
    shared = by_size(prior, mask)
    present = jnp.ones(weights.shape[-1], bool) if mask is None else jnp.asarray(mask)
    return own_row((1.0 - strength) * weights + strength * shared, present)

"""Weights of FedAMP and FedAWA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._rows import Scalar, own_row
from ._similarity import median_distance


@jax.jit
def fedamp(
    squared: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    sigma: Scalar | None = None,
    alpha: Scalar | None = None,
) -> Float[Array, "*blocks n n"]:
    """ξ_ik = alpha / sigma · exp(-d_ik² / sigma) and ξ_ii = 1 - Σ_k≠i ξ_ik.

    Args:
        squared: squared distances of the clients' models.
        mask: which clients are present.
        sigma: None: the median squared distance of the present pairs.
        alpha: None: sigma / (n - 1) with n present clients, the largest with no negative self weight. At
            alpha = sigma and small distances the self weight is 2 - n.

    Source: FedAMP (Huang et al., AAAI 2021), equations 3 to 5 with A(x) = 1 - exp(-x / sigma).
    """
    squared = jnp.asarray(squared)
    present = jnp.ones(squared.shape[:-1], bool) if mask is None else jnp.asarray(mask)
    present = jnp.broadcast_to(present, squared.shape[:-1])
    width = median_distance(squared, present)[..., None, None] if sigma is None else sigma
    count = jnp.maximum(present.sum(-1) - 1, 1)[..., None, None]
    step = 1.0 / count if alpha is None else alpha / width
    eye = jnp.eye(squared.shape[-1], dtype=bool)
    others = present[..., None, :] & ~eye
    taken = jnp.where(others, step * jnp.exp(-squared / width), 0.0)
    own = 1.0 - taken.sum(-1, keepdims=True)
    return own_row(jnp.where(eye, own, taken), present)


@partial(jax.jit, static_argnames="steps")
def fedawa_logits(
    logits: Float[Array | np.ndarray, " n"],
    gram: Float[Array | np.ndarray, "n n"],
    alignment: Float[Array | np.ndarray, " n"],
    mask: Bool[Array | np.ndarray, " n"],
    *,
    lr: Scalar = 1e-3,
    steps: int = 1,
) -> Float[Array, " n"]:
    """Adam (betas .5 and .999) on T for Σ λ_k (1 - alignment_k) + Σ λ_k ‖τ_k - Σ_j λ_j τ_j‖, λ = softmax(T).

    Args:
        logits: T before the round; absent clients keep theirs.
        gram: inner products of the task vectors: all norms follow from it.
        alignment: cos(θ_k, θ̄), the model with the aggregate that it started from.
        mask: which clients are present.
        lr: step of Adam.
        steps: steps to take.

    Source: FedAWA (CVPR 2025).
    """
    gram, alignment, mask = jnp.asarray(gram), jnp.asarray(alignment), jnp.asarray(mask)
    scale = jnp.maximum(jnp.diagonal(gram).max(), jnp.finfo(jnp.float32).tiny)

    def loss(t: Array) -> Array:
        share = jnp.where(mask, jax.nn.softmax(jnp.where(mask, t, -jnp.inf)), 0.0)
        squared = jnp.diagonal(gram) - 2.0 * gram @ share + share @ gram @ share
        # The root's slope is infinite at 0, where a client equals the mean.
        apart = jnp.sqrt(jnp.maximum(squared, 1e-12 * scale))
        return share @ jnp.where(mask, 1.0 - alignment + apart, 0.0)

    def step(i: Array | int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, first, second = state
        slope = jax.grad(loss)(t)
        first, second = 0.5 * first + 0.5 * slope, 0.999 * second + 0.001 * slope**2
        count = i + 1
        change = first / (1 - 0.5**count) / (jnp.sqrt(second / (1 - 0.999**count)) + 1e-8)
        return jnp.where(mask, t - lr * change, t), first, second

    start = jnp.asarray(logits, jnp.float32)
    zero = jnp.zeros_like(start)
    return jax.lax.fori_loop(0, steps, step, (start, zero, zero))[0]

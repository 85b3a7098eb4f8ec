"""Noise-corrected weighting: the linear estimate of each client's true direction of least error (ours)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from ._rows import Scalar, normalise, participants

# Ridge on the unit-diagonal Gram: duplicates make it singular, and float32 leaves ~1e-6 n of noise there.
_RIDGE = 1e-5

COPY = 1 - 1e-6
"""Cosine above which two vectors are one: independent training does not get there, float32 products do."""


def fill_diagonal(
    correlation: Float[Array | np.ndarray, "*blocks n n"],
    present: Bool[Array | np.ndarray, "*blocks n"],
    *,
    rank: int = 4,
    steps: int = 50,
    copies: Bool[Array, "*blocks n n"] | None = None,
) -> Float[Array, "*blocks n"]:
    """Share of each client's energy that is signal, in [0, 1]: the diagonal of a low-rank fit.

    Off-diagonal entries are unbiased (the noise of two clients is independent), only the diagonal carries
    noise. So the diagonal is refilled until it agrees with the rank-`rank` positive semi-definite fit of
    the whole: principal-axis factoring, started from each row's largest |correlation|. Pairs that sent one
    and the same vector (`copies`) share its noise: their entries are refilled as the diagonal is.
    """
    correlation = jnp.asarray(correlation)
    eye = jnp.eye(correlation.shape[-1], dtype=bool)
    rank = min(rank, correlation.shape[-1])
    same = eye if copies is None else eye | copies
    off = jnp.where(same, 0.0, correlation)
    # m copies, each weighed 1/√m, have the spectrum of one: by numbers they would fill a factor of their own.
    weight = jax.lax.rsqrt(same.sum(-1).astype(correlation.dtype))
    pair = weight[..., :, None] * weight[..., None, :]

    def step(_: Array | int, share: Array) -> Array:
        # The rows of two copies are equal, and so are their shares.
        values, vectors = jnp.linalg.eigh(pair * (off + jnp.where(same, share[..., None], 0.0)))
        top, axes = jnp.maximum(values[..., -rank:], 0.0), vectors[..., -rank:]
        fitted = jnp.sum(top[..., None, :] * axes**2, axis=-1) / weight**2
        return jnp.where(present, jnp.clip(fitted, 0.0, 1.0), 0.0)

    return lax.fori_loop(0, steps, step, jnp.where(present, jnp.abs(off).max(-1), 0.0))


@partial(jax.jit, static_argnames=("rank", "steps"))
def wiener(
    gram: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    noise: Float[Array | np.ndarray, "*blocks n"] | None = None,
    rank: int = 4,
    steps: int = 50,
    floor: Scalar = 0.2,
) -> Float[Array, "*blocks n n"]:
    """W = S (S + N)⁻¹ = I - N G⁻¹ with rows divided by their sums; from the Gram matrix alone.

    S is the Gram of the true directions and N the diagonal noise energies, so E[G] = S + N. No noise gives
    local only, equal directions the average, groups the group averages.

    Args:
        gram: inner products, best averaged over the rounds so far; squared unit of the task vectors.
        mask: which clients are present; those with a zero diagonal count as absent.
        noise: noise energies in the unit of `gram` (from split halves); None estimates them by
            `fill_diagonal` with `rank` and `steps`.
        rank: directions the clients are thought to share; 2 for about 8 clients, 4 for more.
        floor: rows with a smaller sum keep their own update.
    """
    gram = jnp.asarray(gram)
    present = participants(gram, mask)
    pair = present[..., :, None] & present[..., None, :]
    eye = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    energy = jnp.where(present, jnp.diagonal(gram, axis1=-2, axis2=-1), 1.0)
    norm = jnp.sqrt(energy)
    unit = jnp.where(pair, gram / norm[..., :, None] / norm[..., None, :], 0.0)
    unit = jnp.where(eye > 0, 1.0, unit)
    if noise is None:
        share = 1.0 - fill_diagonal(unit, present, rank=rank, steps=steps)
    else:
        share = jnp.clip(jnp.asarray(noise) / energy, 0.0, 1.0)
    inverse = jnp.linalg.inv(unit + _RIDGE * eye)
    scaled = eye - share[..., :, None] * inverse
    return normalise(scaled * norm[..., :, None] / norm[..., None, :], present, floor)

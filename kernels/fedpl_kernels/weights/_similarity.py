"""Similarities that follow from inner products in O(n²) or O(n³), or from LoRA factors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from .._distance import squared_distances
from .._lora import lora_gram
from ._rows import Scalar, participants
from ._wiener import COPY, fill_diagonal


@jax.jit
def centre(
    gram: Float[Array | np.ndarray, "*blocks n n"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> Float[Array, "*blocks n n"]:
    """Inner products of x_i - mean(x) over the present: H G H; rows and columns of the absent are zero."""
    gram = jnp.asarray(gram)
    present = participants(gram, mask)
    pair = present[..., :, None] & present[..., None, :]
    count = jnp.maximum(present.sum(-1), 1)[..., None, None]
    kept = jnp.where(pair, gram, 0.0)
    rows = kept.sum(-1, keepdims=True) / count
    return jnp.where(
        pair, kept - rows - jnp.swapaxes(rows, -1, -2) + rows.sum(-2, keepdims=True) / count, 0.0
    )


@partial(jax.jit, static_argnames=("rank", "steps"))
def corrected(
    cosine: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    rank: int = 4,
    steps: int = 50,
    floor: Scalar = 0.05,
) -> Float[Array, "*blocks n n"]:
    """cos_ij / √(share_i share_j), clipped to [-1, 1]: shares of signal from `fill_diagonal`.

    Spearman's correction for attenuation; a share below `floor` counts as the floor. A pair above `COPY`
    has one vector between them: its cosine says nothing of how much signal either has.
    """
    cosine = jnp.asarray(cosine)
    present = participants(cosine, mask)
    eye = jnp.eye(cosine.shape[-1], dtype=bool)
    copies = (cosine > COPY) & ~eye
    found = fill_diagonal(cosine, present, rank=rank, steps=steps, copies=copies)
    share = jnp.maximum(found, floor)
    scaled = cosine * jax.lax.rsqrt(share[..., :, None] * share[..., None, :])
    return jnp.where(eye, present[..., None].astype(cosine.dtype), jnp.clip(scaled, -1.0, 1.0))


@jax.jit
def median_distance(
    squared: Float[Array, "*blocks n n"], present: Bool[Array, "*blocks n"]
) -> Float[Array, "*blocks"]:
    """Median of the squared distances of the present pairs; 1 where there is no pair."""
    pair = present[..., :, None] & present[..., None, :] & ~jnp.eye(squared.shape[-1], dtype=bool)
    flat = jnp.where(pair, squared, jnp.nan).reshape(*squared.shape[:-2], -1)
    middle = jnp.nanmedian(flat, axis=-1)
    return jnp.where(jnp.isfinite(middle) & (middle > 0), middle, 1.0)


@jax.jit
def rbf(
    gram: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    sigma: Scalar | None = None,
) -> Float[Array, "*blocks n n"]:
    """exp(-‖x_i - x_j‖² / sigma); sigma None: the median squared distance of the present pairs."""
    gram = jnp.asarray(gram)
    present = participants(gram, mask)
    squared = squared_distances(gram).squared
    width = median_distance(squared, present)[..., None, None] if sigma is None else sigma
    pair = present[..., :, None] & present[..., None, :]
    return jnp.where(pair, jnp.exp(-squared / width), 0.0)


@jax.jit
def subspace_overlap(
    factors: Float[Array | np.ndarray, "n d r"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    threshold: Scalar = 1e-3,
) -> Float[Array, "n n"]:
    """‖U_iᵀ U_j‖²_F with U the orthonormal bases of the factors' columns; the diagonal is the rank.

    Args:
        factors: one matrix a client.
        mask: which clients are present.
        threshold: singular values below this share of the largest are no direction.
    """
    u, values, _ = jnp.linalg.svd(jnp.asarray(factors), full_matrices=False)
    kept = (values > threshold * values[:, :1]) & (values > 0)
    u = u * kept[:, None, :]
    return lora_gram(jnp.swapaxes(u, 1, 2), u, 1.0, mask)

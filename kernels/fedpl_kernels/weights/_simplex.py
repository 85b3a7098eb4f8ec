"""pFedGraph's quadratic programme on the simplex, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Num

from ._prior import by_size
from ._rows import Scalar, own_row, participants


def project_simplex(
    points: Float[Array | np.ndarray, "*blocks n"], present: Bool[Array | np.ndarray, "*blocks n"]
) -> Float[Array, "*blocks n"]:
    """Nearest point of {p >= 0, Σ p = 1} whose absent entries are 0, by sorting.

    Source: Duchi et al., Efficient projections onto the l1-ball (ICML 2008), figure 1.
    """
    points, present = jnp.asarray(points), jnp.asarray(present)
    # Only differences matter to the result; the shift keeps sums of large entries exact.
    top = jnp.max(jnp.where(present, points, -jnp.inf), axis=-1, keepdims=True)
    shifted = jnp.where(present, points - jnp.where(jnp.isfinite(top), top, 0.0), -jnp.inf)
    ordered = -jnp.sort(-shifted, axis=-1)
    real = jnp.isfinite(ordered)
    sums = jnp.cumsum(jnp.where(real, ordered, 0.0), axis=-1)
    count = jnp.arange(1, points.shape[-1] + 1)
    inside = real & (1.0 + count * jnp.where(real, ordered, 0.0) > sums)
    size = jnp.maximum(inside.sum(-1, keepdims=True), 1)
    level = (jnp.take_along_axis(sums, size - 1, axis=-1) - 1.0) / size
    return jnp.where(present, jnp.maximum(jnp.where(present, shifted, 0.0) - level, 0.0), 0.0)


@jax.jit
def simplex_qp(
    similarity: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    prior: Num[Array | np.ndarray, " n"] | None = None,
    strength: Scalar = 0.8,
    saturation: Scalar = 0.9,
) -> Float[Array, "*blocks n n"]:
    """argmin_p Σ_k p_k d_ik + strength ‖p - prior‖² on the simplex, d = -similarity.

    The minimum is the projection of prior - d / (2 strength): no solver. As strength grows the rows tend to
    the prior (sizes; uniform when None), as it goes to 0 to the single best neighbour.

    Args:
        similarity: cosines of the cumulative task vectors.
        mask: which clients are present.
        prior: non-negative, scaled here to sum to one over the present.
        strength: λ > 0 (pFedGraph's alpha, 0.8).
        saturation: similarities above count as 1 (pFedGraph: 0.9); 1 turns it off.

    Source: pFedGraph (Ye et al., ICML 2023), equation of the collaboration graph.
    """
    similarity = jnp.asarray(similarity)
    present = participants(similarity, mask)
    gain = jnp.where(similarity > saturation, 1.0, similarity)
    sizes = jnp.ones(similarity.shape[-1], jnp.float32) if prior is None else jnp.asarray(prior, jnp.float32)
    target = by_size(jnp.broadcast_to(sizes, present.shape), present) + gain / (2.0 * strength)
    pair = jnp.broadcast_to(present[..., None, :], target.shape)
    return own_row(project_simplex(target, pair), present)

"""The paper's weighting, with the policy it leaves open made explicit."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._rows import Scalar, own_row, participants


@partial(jax.jit, static_argnames=("negatives", "fallback"))
def fedbip(
    cosine: Float[Array | np.ndarray, "*blocks n n"],
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    negatives: Literal["keep", "clip", "abs"] = "keep",
    floor: Scalar = 0.2,
    fallback: Literal["local", "uniform", "abs"] = "local",
) -> Float[Array, "*blocks n n"]:
    """p_ik = cos(τ_i, τ_k) / Σ_j cos(τ_i, τ_j), the row of FedBip (arXiv 2509.12697).

    The row sum vanishes or turns negative exactly for outlier clients (8 clients with a mean off-diagonal
    cosine of -1/7: infinite weights), so a row whose sum is below `floor` takes the declared fall-back.

    Args:
        cosine: cosine similarities; a zero diagonal marks a client without direction, who keeps its own.
        mask: which clients are present.
        negatives: "keep" them as the formula says, "clip" them to 0, or take their "abs"olute value.
        floor: smallest row sum that is divided by. Above 1, every orthogonal client falls back too.
        fallback: "local" (identity row), "uniform" over the present, or "abs" (|cos| / Σ|cos|).
    """
    present = participants(cosine, mask)
    pair = present[..., :, None] & present[..., None, :]
    raw = jnp.where(pair, jnp.asarray(cosine), 0.0)
    chosen = {"keep": raw, "clip": jnp.maximum(raw, 0.0), "abs": jnp.abs(raw)}[negatives]
    total = chosen.sum(-1, keepdims=True)
    good = total >= jnp.maximum(floor, jnp.finfo(raw.dtype).tiny)
    other = {
        "local": jnp.eye(raw.shape[-1], dtype=raw.dtype),
        "uniform": pair.astype(raw.dtype),
        "abs": jnp.abs(raw),
    }[fallback]
    spare = other / jnp.maximum(other.sum(-1, keepdims=True), jnp.finfo(raw.dtype).tiny)
    return own_row(jnp.where(good, chosen / jnp.where(good, total, 1.0), spare), present)

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
    bound: Scalar | None = None,
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
        bound: largest Σ_k |p_ik| of a row, above 1. With P and N the sums of a row's positive and negative
            cosines it is (P + N) / (P - N); a row above the floor that exceeds it has N scaled to
            P (bound - 1) / (bound + 1).
            None: the formula alone, which is unbounded but for the floor.
    """
    present = participants(cosine, mask)
    pair = present[..., :, None] & present[..., None, :]
    raw = jnp.where(pair, jnp.asarray(cosine), 0.0)
    chosen = {"keep": raw, "clip": jnp.maximum(raw, 0.0), "abs": jnp.abs(raw)}[negatives]
    total = chosen.sum(-1, keepdims=True)
    good = total >= jnp.maximum(floor, jnp.finfo(raw.dtype).tiny)
    if bound is not None and negatives == "keep":
        positive = jnp.maximum(chosen, 0.0).sum(-1, keepdims=True)
        negative = jnp.maximum(-chosen, 0.0).sum(-1, keepdims=True)
        allowed = positive * ((bound - 1.0) / (bound + 1.0))
        scale = jnp.where(negative > allowed, allowed / jnp.where(negative > 0, negative, 1.0), 1.0)
        chosen = jnp.where(chosen < 0, chosen * scale, chosen)
        total = chosen.sum(-1, keepdims=True)
    other = {
        "local": jnp.eye(raw.shape[-1], dtype=raw.dtype),
        "uniform": pair.astype(raw.dtype),
        "abs": jnp.abs(raw),
    }[fallback]
    spare = other / jnp.maximum(other.sum(-1, keepdims=True), jnp.finfo(raw.dtype).tiny)
    return own_row(jnp.where(good, chosen / jnp.where(good, total, 1.0), spare), present)

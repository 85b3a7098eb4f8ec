"""From where clients go on whose own task vectors count nothing."""

from typing import Any

import numpy as np


def starts(weights: Any, xp: Any = np) -> Any:
    """Weights of the aggregates on which updates are put, [..., n, n].

    A client without a weight in its own row follows others: it goes on from their aggregates, as they count
    in its row. All others, and who takes nothing of anybody, go on from their own.

    Args:
        weights: pᵢₖ, [..., n, n].
        xp: Whose arrays these are: `numpy` or `jax.numpy`.
    """
    own = xp.eye(weights.shape[-1], dtype=weights.dtype)
    taken = xp.maximum(weights, 0.0)
    total = taken.sum(-1, keepdims=True)
    follows = ((weights * own).sum(-1, keepdims=True) == 0) & (total > 0)
    return xp.where(follows, taken / xp.where(follows, total, 1.0), own)

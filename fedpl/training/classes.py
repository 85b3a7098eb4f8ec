"""Classes that a client lacks, kept out of its answers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def known_classes(
    logits: Float[Tensor, "rows ..."], classes: Sequence[int] | None
) -> Float[Tensor, "rows ..."]:
    """Logits with −∞ for the classes that a client does not have; None: it has all."""
    if classes is None:
        return logits
    absent = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    absent[list(classes)] = False
    return logits.masked_fill(absent, float("-inf"))

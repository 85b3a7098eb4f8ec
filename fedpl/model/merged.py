"""An adapter that also holds what was added to the frozen weights (FLoRA, FedEx)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fedpl.records.layout import AdapterLayout

_NEGLIGIBLE = 1e-6  # of the largest singular value of a residual


def merged(
    tensors: Mapping[str, Tensor], residual: Float[Tensor, "weights"], layout: AdapterLayout
) -> tuple[dict[str, Tensor], int]:
    """B A and the residual R of every adapted layer as one adapter of higher rank, for the frozen W₀.

    s [B, U] [A; V] = s BA + R with R / s = U V by singular values; layers of a lower rank are padded with
    zeros, and alpha has to grow with the rank so that the scale s stays.

    Args:
        tensors: The adapter by name.
        residual: What is added to the frozen weights, as in `BaseWeights.shift`.
        layout: The adapter's layout.

    Returns:
        The tensors, and their rank.
    """
    factors: dict[str, Tensor] = {}
    ranks = [layout.pairs[0][0].shape[0]] if layout.pairs else []
    start = 0
    for a, b in layout.pairs:
        out, into = b.shape[0], a.shape[1]
        part = residual[start : start + out * into].view(out, into).cpu().double() / layout.scale
        start += out * into
        u, values, v = torch.linalg.svd(part, full_matrices=False)
        rank = int((values > _NEGLIGIBLE * values[0]).sum()) if values[0] > 0 else 0
        root = values[:rank].sqrt()
        factors[a.name] = torch.cat([tensors[a.name], (root[:, None] * v[:rank]).float()])
        factors[b.name] = torch.cat([tensors[b.name], (u[:, :rank] * root).float()], dim=1)
        ranks.append(len(factors[a.name]))
    rank = max(ranks)
    for a, b in layout.pairs:
        missing = rank - len(factors[a.name])
        factors[a.name] = F.pad(factors[a.name], (0, 0, 0, missing))
        factors[b.name] = F.pad(factors[b.name], (0, missing))
    return {**tensors, **factors}, rank

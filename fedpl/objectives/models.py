"""The models that clients use: adapters, or pairs of adapters (FedDPA)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Duo(NamedTuple):
    """A model of two adapters: each adapted layer gives w · local + (1 − w) · common, w differing by text.

    w is max_share times the mean cosine between the text's vector before the head and those of some training
    texts, all by the local adapter alone.

    Attributes:
        local: The client's own adapter; a row per client, or one.
        common: The federation's.
        max_share: w of a text like the training texts.
        examples: Training texts to compare with.
    """

    local: Float[Tensor, "... params"]
    common: Float[Tensor, "... params"]
    max_share: float
    examples: int

    def rows(self, index: int | slice | Sequence[int]) -> "Duo":
        """The same for one or some of the clients."""
        return self._replace(local=self.local[index], common=self.common[index])


# The models of some clients, a row each, or one client's.
Models = Float[Tensor, "... params"] | Duo


def rows_of(models: Models, index: int | slice | Sequence[int]) -> Models:
    """The models of one or some of the clients."""
    return models.rows(index) if isinstance(models, Duo) else models[index]


def stack_models(models: Sequence[Models]) -> Models:
    """Single clients' models as rows.

    Raises:
        TypeError: If they are not all of one kind.
    """
    duos = [model for model in models if isinstance(model, Duo)]
    if not duos:
        return torch.stack([model for model in models if isinstance(model, Tensor)])
    if len(duos) < len(models):
        raise TypeError("expected models of one kind, got single adapters and pairs of adapters")
    local, common = (torch.stack(rows) for rows in zip(*(duo[:2] for duo in duos), strict=True))
    return duos[0]._replace(local=local, common=common)

"""What one phase of local training optimises, and what may stand between the trained rows and the model.

Everything is row by row: row i of each tensor belongs to client i of the cohort, and to no other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_TINY = 1e-12
Rows = slice | Sequence[int]


class Pull(NamedTuple):
    """strength / 2 · ‖θ − anchor‖², added to a client's loss (FedProx, arXiv 1812.06127)."""

    anchor: Float[Tensor, "clients params"]
    strength: float

    def value(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients"]:
        return self.strength / 2 * (theta - self.anchor).square().sum(1)

    def gradient(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients params"]:
        return (theta - self.anchor).mul_(self.strength)


class Align(NamedTuple):
    """strength · (1 − cos(θ, direction)), added to a client's loss (pFedGraph, ICML 2023)."""

    direction: Float[Tensor, "clients params"]
    strength: float

    def value(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients"]:
        cosine = torch.nn.functional.cosine_similarity(theta, self.direction, dim=1, eps=_TINY)
        return self.strength * (1 - cosine)

    def gradient(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients params"]:
        norm = theta.norm(dim=1, keepdim=True).clamp(min=_TINY)
        unit = theta / norm
        target = torch.nn.functional.normalize(self.direction, dim=1, eps=_TINY)
        return (unit * (unit * target).sum(1, keepdim=True) - target) * (self.strength / norm)


class Mixture(NamedTuple):
    """The model is share · θ + (1 − share) · base; θ learns, and the share may (APFL, arXiv 2003.13461).

    Attributes:
        base: The other part of the mixture, fixed.
        share: Of θ, in [0, 1]; changed in place.
        rate: Step size of the share; 0 keeps it.
    """

    base: Float[Tensor, "clients params"]
    share: Float[Tensor, "clients 1"]
    rate: float = 0.0

    def point(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients params"]:
        """The model's parameters."""
        return torch.lerp(self.base, theta, self.share)

    def pull_back(
        self, theta: Float[Tensor, "clients params"], gradient: Float[Tensor, "clients params"]
    ) -> None:
        """Turn the gradient by the parameters into the one by θ, in place; the share takes its step."""
        slope = ((theta - self.base) * gradient).sum(1, keepdim=True)
        gradient.mul_(self.share)
        self.learn(slope)

    def learn(self, slope: Float[Tensor, "clients 1"]) -> None:
        """One step of the share against its own gradient."""
        self.share.sub_(slope, alpha=self.rate).clamp_(0, 1)

    def bound(self, theta: Float[Tensor, "..."]) -> None:
        """θ is free."""


class Blend(NamedTuple):
    """The model is own + θ ⊙ (received − own) with θ in [0, 1] (FedALA, arXiv 2212.01197).

    Attributes:
        own: The client's own model.
        received: Its aggregate θ̄ᵢ.
    """

    own: Float[Tensor, "clients params"]
    received: Float[Tensor, "clients params"]

    def point(self, theta: Float[Tensor, "clients params"]) -> Float[Tensor, "clients params"]:
        """The model's parameters."""
        return torch.lerp(self.own, self.received, theta)

    def pull_back(
        self, theta: Float[Tensor, "clients params"], gradient: Float[Tensor, "clients params"]
    ) -> None:
        """Turn the gradient by the model's parameters into the one by θ, in place."""
        gradient.mul_(self.received - self.own)

    def bound(self, theta: Float[Tensor, "..."]) -> None:
        """Keep θ within [0, 1]."""
        theta.clamp_(0, 1)


class Beside(NamedTuple):
    """A second adapter at work in every adapted layer: share · own + (1 − share) · other (FedDPA).

    Attributes:
        other: The second adapter, fixed.
        share: Of the adapter that learns.
    """

    other: Float[Tensor, "clients params"]
    share: float


class Phase(NamedTuple):
    """One stretch of local training of one or more clients.

    Attributes:
        name: Of its random streams; the round's main phase, whose loss is reported, has none.
        start: Where the rows begin; None: at what was received.
        epochs: Passes over the training data, for all or each of the clients; None: client.epochs.
        portion: Of the training examples that it may see, drawn anew in each round.
        train: Names of the tensors that learn; None: all.
        penalties: Added to each client's loss.
        view: Between the rows and the model; None: the rows are the model's parameters.
        beside: A second, fixed adapter in every layer.
        plain_lr: Size of plain gradient steps, unclipped, in place of the configured optimiser.
    """

    name: str = ""
    start: Float[Tensor, "clients params"] | None = None
    epochs: int | Sequence[int | None] | None = None
    portion: float = 1.0
    train: frozenset[str] | None = None
    penalties: tuple[Pull | Align, ...] = ()
    view: Mixture | Blend | None = None
    beside: Beside | None = None
    plain_lr: float | None = None

    def rows(self, index: Rows) -> "Phase":
        """The same for some of the clients: views of a slice's rows, copies of a sequence's."""
        return self._replace(
            start=None,
            penalties=tuple(_select(penalty, index) for penalty in self.penalties),
            view=None if self.view is None else _select(self.view, index),
            beside=None if self.beside is None else _select(self.beside, index),
        )


PLAIN = Phase()


def _select(record: Any, index: Rows) -> Any:
    return type(record)(*(field[index] if isinstance(field, Tensor) else field for field in record))

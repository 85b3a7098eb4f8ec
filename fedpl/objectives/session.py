"""A round's local training as an objective sees it: rows of matrices, one row a client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedpl.objectives.models import Models
from fedpl.objectives.phases import PLAIN, Phase


class Fitted(NamedTuple):
    """What a phase gives.

    Attributes:
        theta: The trained rows.
        share: The mixture's shares after it, if there is a mixture.
    """

    theta: Float[Tensor, "clients params"]
    share: Float[Tensor, "clients 1"] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a round leaves.

    Attributes:
        theta: θᵢ, of which τᵢ = θᵢ − θ̄ᵢ is sent.
        tuned: The models that the clients use and that are scored; None: θ.
        state: What the clients remember until they next take part, a row each.
    """

    theta: Float[Tensor, "clients params"]
    tuned: Models | None = None
    state: Mapping[str, Float[Tensor, "clients ..."]] = field(default_factory=dict)


@runtime_checkable
class Session(Protocol):
    """The clients of a cohort (or one client alone) in one round."""

    @property
    def received(self) -> Float[Tensor, "clients params"]:
        """What the clients received; a new matrix each time."""
        ...

    def recall(self, name: str, otherwise: Float[Tensor, "clients ..."]) -> Float[Tensor, "clients ..."]:
        """What each client remembers by a name, or the row given for those who remember nothing.

        Args:
            name: Key of `Outcome.state`.
            otherwise: A row for each client.
        """
        ...

    def remembers(self, name: str) -> list[bool]:
        """Who remembers something by this name."""
        ...

    def tensors(self, kinds: Sequence[str]) -> frozenset[str]:
        """Names of the adapter's tensors of these kinds."""
        ...

    def top(self, blocks: int) -> frozenset[str]:
        """Names of the tensors of the last blocks, of which the head is one; 0: of all."""
        ...

    def fit(self, phase: Phase = PLAIN) -> Fitted:
        """Train every client through a phase."""
        ...

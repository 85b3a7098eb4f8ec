"""What a client does with its data in a round: settings, and the phases that they amount to.

An objective is called with a `fedpl.objectives.session.Session` of one or more clients and speaks of rows of
matrices; whether the rows are trained one by one or stacked is not its concern.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.objectives.session import Outcome, Session


class Objective(ABC):
    """What clients minimise in a round, from where, in one or more phases.

    Attributes:
        copies: How many matrices of the cohort's size it holds beyond plain training's.
    """

    copies: ClassVar[int] = 0
    in_pairs: ClassVar[bool] = False
    """Whether a client uses two adapters at once."""

    @abstractmethod
    def __call__(self, session: "Session") -> "Outcome": ...

    def personal(
        self, state: "Mapping[str, Tensor]", aggregate: "Float[Tensor, 'params']"
    ) -> "Float[Tensor, 'params'] | None":
        """The adapter that a client uses in place of its aggregate, or beside it; None: there is none.

        What it remembers under this name, unless an objective says otherwise.

        Args:
            state: What the client remembers.
            aggregate: Its newest θ̄ᵢ.
        """
        return state.get("personal")

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()


def positive(name: str, value: float) -> Sequence[str]:
    """A line if a setting that must be positive is not."""
    return () if value > 0 else [f"client.objective.{name}: must be positive, got {value}"]


def at_least_one(name: str, value: int | None) -> Sequence[str]:
    """A line if a setting that counts something counts nothing; null is fine."""
    return () if value is None or value >= 1 else [f"client.objective.{name}: at least 1, got {value}"]

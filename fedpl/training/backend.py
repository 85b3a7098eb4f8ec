"""How rows of adapters are trained and asked: one by one through PEFT, or stacked. The rest is common."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from fedpl.model.foundation import Foundation
from fedpl.objectives.models import Models
from fedpl.objectives.phases import Phase
from fedpl.training.partitions import Learner, Partitions
from fedpl.training.settings import ClientConfig


class Effort(NamedTuple):
    """What a client's round asks for.

    Attributes:
        steps: Optimiser steps.
        tokens: Tokens of one epoch.
    """

    steps: int
    tokens: int


class Answered(NamedTuple):
    """What models gave to some rows.

    Attributes:
        client: Each row's client, as a place among those asked.
        targets: What is right for each row.
        outputs: What the model gives.
        weight: Each row's share of the mean over its client's targets.
    """

    client: Int[Tensor, "rows"]
    targets: Tensor
    outputs: Float[Tensor, "rows ..."]
    weight: Float[Tensor, "rows"]


@runtime_checkable
class Backend(Protocol):
    """Trains rows, and gives models' outputs.

    Attributes:
        foundation: The frozen model.
        partitions: The clients' data, task and settings.
    """

    foundation: Foundation
    partitions: Partitions

    def fit(
        self,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        phase: Phase,
    ) -> list[float]:
        """Train rows in place; learners come by descending number of steps. Returns their mean losses."""
        ...

    def answers(self, clients: Sequence[str], models: Models, split: str) -> Iterator[Answered]:
        """Outputs for every example of a split of the clients' own data.

        Args:
            clients: Whose data.
            models: An adapter per client, or two.
            split: train, validation or test.
        """
        ...

    def write(
        self,
        clients: Sequence[str],
        models: Models,
        prompts: Sequence[Sequence[list[int]]],
        streams: Sequence[Sequence[int]],
    ) -> list[list[list[int]]]:
        """New tokens of answers.

        Args:
            clients: Whose.
            models: One per client.
            prompts: Tokens of each client's prompts.
            streams: Seed of what is drawn for each.
        """
        ...

    @property
    def size(self) -> int:
        """Most clients at once."""
        ...

    def groups(self, efforts: Sequence[Effort]) -> list[list[int]]:
        """Places of the clients that train together."""
        ...

    def capacity(self) -> dict[str, int]:
        """What was chosen for this machine as it is now and decides groups and rounding."""
        ...

    def use(self, capacity: Mapping[str, int]) -> None:
        """Use what had been chosen before, from `capacity`."""
        ...

    def shrink(self, clients: int) -> None:
        """Memory ran out with so many clients: go on with half, or raise what is to be said."""
        ...

    def rest(self) -> None:
        """A cohort is done: give back what it took."""
        ...

"""A method: what clients minimise, and what the server makes of what they send."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedpl.objectives import Objective, Plain
from fedpl.server import Aggregator, Local

_WORD = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Method:
    """What tables and pictures call a method.

    Attributes:
        name: A single word.
        objective: What clients minimise, and from where.
        aggregator: The server rule.
    """

    name: str
    objective: Objective = Plain()
    aggregator: Aggregator = Aggregator()

    @property
    def exchanges(self) -> bool:
        """Whether anything leaves a client: nothing does where each keeps its own task vector alone."""
        return not isinstance(self.aggregator.weighting, Local)

    def problems(self) -> Sequence[str]:
        """What is wrong with it, one line each."""
        found = [] if _WORD.fullmatch(self.name) else [f"name: a single word, got '{self.name}'"]
        return [*found, *self.objective.problems(), *self.aggregator.problems()]

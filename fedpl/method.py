"""A method: what clients minimise, and what the server makes of what they send."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedpl.objectives import FedRep, Objective, Plain
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

    @property
    def heads_alone(self) -> bool:
        """Whether clients are compared by their heads, which is by whole adapters where there are none."""
        return self.aggregator.subject.space == "head"

    def headless_problems(self) -> Sequence[str]:
        """What of it a task without a head cannot do, one line each."""
        rule, found = self.aggregator, []
        if isinstance(self.objective, FedRep):
            found.append("FedRep trains a head of the client's own before the adapter")
        if getattr(self.objective, "train", ()) == ("head",):
            found.append("it trains the head alone")
        if {"lora_A", "lora_B"} <= set(rule.share) and "head" not in rule.share and not rule.local_blocks:
            found.append(
                "it keeps the head alone with clients, and would average all there is; keep blocks with them "
                "by --aggregator.local_blocks, or take fedavg_by_size"
            )
        if rule.share == ("head",):
            found.append("it exchanges the head alone")
        return [f"{self.name}: the task has no head: {what}" for what in found]

    def problems(self) -> Sequence[str]:
        """What is wrong with it, one line each."""
        found = [] if _WORD.fullmatch(self.name) else [f"name: a single word, got '{self.name}'"]
        return [*found, *self.objective.problems(), *self.aggregator.problems()]

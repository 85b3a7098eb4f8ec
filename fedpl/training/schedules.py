"""Learning-rate schedules as pure functions of (round, step, budget). Imports no torch."""

import math
from typing import Literal, NamedTuple

Shape = Literal["constant", "linear", "cosine"]


class Schedule(NamedTuple):
    """How a client's learning rates change from step to step.

    A client's steps are counted on its own: where a budget is smaller, the same curve is gone through faster.

    Attributes:
        shape: constant; linear and cosine fall towards 0, which the step after the last one would have.
        over: Whether that happens anew in every round, or once in all rounds. A round in which a client is
            absent passes for it, too.
        warmup: Steps in which the rates rise first; below 1: share of all.
    """

    shape: Shape = "constant"
    over: Literal["round", "run"] = "round"
    warmup: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether the rates differ from those configured at all."""
        return self.shape != "constant" or self.warmup > 0

    @property
    def needs_rounds(self) -> bool:
        """Whether they depend on how many rounds there are."""
        return self.changes and self.over == "run"

    def factors(self, round: int, budget: int, rounds: int) -> tuple[float, ...]:
        """Factor on the learning rates at each step of a round; empty: 1 at all of them.

        Args:
            round: Number of the round, from 1.
            budget: The client's steps in a round (or in a phase of it).
            rounds: Of the run.
        """
        if not self.changes:
            return ()
        before, total = ((round - 1) * budget, rounds * budget) if self.over == "run" else (0, budget)
        return tuple(self._factor(before + step, total) for step in range(budget))

    def _factor(self, step: int, total: int) -> float:
        warmup = self.warmup if self.warmup >= 1 else self.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)  # not 0 at the first of few steps
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
        match self.shape:
            case "linear":
                return 1 - done
            case "cosine":
                return (1 + math.cos(math.pi * done)) / 2
            case _:
                return 1.0

"""What a client's own validation data say about which model should answer for it."""

from dataclasses import dataclass
from typing import ClassVar

from fedpl.records.plain import optional
from fedpl.records.record import Kept
from fedpl.records.scores import Scores

FOLDER = "best"
OTHERS = ("tuned", "mixture", "local")  # which may take the aggregate's place


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """How much better a model answers than the aggregate, example by example of the validation data.

    Attributes:
        mean: Of the primary metric, in its own numbers (accuracy: a fraction), the more the better; one
            example on which nothing differs counts among the client's own.
        low: Lower end of the 95 % interval, by Student's t.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice(Kept):
    """What answers for a client.

    Attributes:
        model: aggregated, unless tuned, mixture or local is better by more than one standard error.
        examples: Validation examples.
        tuned: Advantage of the tuned (or personal) model over the aggregate; null where the client took no
            part in the last round.
        mixture: Of half of both.
        local: Of the model that it trains alone; null where `local` was no baseline.
        test: Scores of what was chosen on the client's test data; in summaries they stand among the others'.
    """

    FILE: ClassVar[str] = "choice.json"

    model: str
    examples: int
    tuned: Advantage | None
    mixture: Advantage | None
    local: Advantage | None
    test: Scores | None = optional()

    @property
    def over(self) -> dict[str, Advantage]:
        """The advantages of the models that there are, by name."""
        return {name: own for name in OTHERS if (own := getattr(self, name)) is not None}

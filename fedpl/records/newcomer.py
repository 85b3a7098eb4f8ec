"""What came of a newcomer to a finished run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedpl.records.earlier import Earlier
from fedpl.records.plain import optional
from fedpl.records.record import Kept
from fedpl.records.scores import Metric, Scores


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Scores of what a newcomer may be served with, on one split of its own data.

    Attributes:
        local: Trained on its own data alone, from θ₀, in as many steps as `tuned`.
        aggregated: θ̄, the aggregate as it receives it.
        tuned: The same after one more round of local training.
        floor: Of the best answer without learning; null on validation data.
    """

    local: Scores
    aggregated: Scores
    tuned: Scores
    floor: Scores | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Newcomer(Kept):
    """A newcomer, or a client of the run with other data than it had.

    Attributes:
        client: Its id.
        update: Whether the run has a client of this id, whose place it takes.
        method: The run's method.
        start: base: from θ₀ through the run's rounds; nearest: from the last aggregates of those that the
            rule gives weight to.
        rounds: Of the run that it has gone through.
        served: What the adapter holds: local, aggregated or tuned.
        examples: Training examples.
        weights: pₖ by client after these rounds, its own among them, averaged over blocks: what it takes.
        similarity: sₖ likewise.
        metrics: What a score consists of.
        scores: By split that it has examples of.
        epsilon: ε of its differential privacy, where the run has any.
        data: Digest of its data.
        versions: Of Python and of the packages that results depend on.
        begun: With which run's models the run began, so that θ₀ above is what its own clients began with or,
            of a newcomer, the mean; absent: θ₀.
    """

    FILE: ClassVar[str] = "newcomer.json"

    client: str
    update: bool
    method: str
    start: str
    rounds: int
    served: str
    examples: int
    weights: Mapping[str, float]
    similarity: Mapping[str, float]
    metrics: tuple[Metric, ...]
    scores: Mapping[str, Choices]
    epsilon: float | None = optional()
    data: str
    versions: Mapping[str, str]
    begun: Earlier | None = optional()

    @property
    def neighbours(self) -> dict[str, float]:
        """Weights of the others that count, the largest first."""
        others = {client: weight for client, weight in self.weights.items() if client != self.client}
        order = sorted(others, key=lambda client: -abs(others[client]))
        return {client: others[client] for client in order if abs(others[client]) >= 5e-4}

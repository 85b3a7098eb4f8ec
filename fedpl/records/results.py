"""What a run found: a method's result, and the summary of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from fedpl.records.choice import Choice
from fedpl.records.earlier import Earlier
from fedpl.records.plain import Matrix, inline, optional
from fedpl.records.record import Kept
from fedpl.records.scores import Metric, Scores

Model: TypeAlias = Literal["aggregated", "tuned", "chosen", "majority"]
# What files without the key "metrics" hold: they are older than it.
BEFORE_METRICS = (Metric("accuracy", "%"), Metric("macro_f1", "%"))


@dataclass(frozen=True, kw_only=True)
class Models:
    """Scores, or a statistic of them, by model.

    Attributes:
        aggregated: Of θ̄ᵢ, the aggregate as the client receives it; null where it has no data of the split.
        tuned: Of the model that the client uses after local training; null where it took no part in the last
            round.
        majority: Of the best answer without learning, beside which the others have to be read; in summaries.
        chosen: Of what the client's guard chose by its validation data when the run had ended; in summaries.
    """

    aggregated: Scores | None
    tuned: Scores | None
    majority: Scores | None = optional()
    chosen: Scores | None = optional()

    def value(self, model: Model, metric: Metric) -> float:
        """One number; NaN for a model that has not been scored."""
        scores: Scores | None = getattr(self, model)
        return np.nan if scores is None else scores[metric.name]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics over the clients that have data of the split, each metric by itself.

    Attributes:
        mean: Mean.
        std: Standard deviation over the clients (population).
        worst: The worst client's, by the metric's direction.
        bottom_decile: The tenth percentile from the worst, interpolated.
    """

    mean: Models
    std: Models
    worst: Models
    bottom_decile: Models

    def value(self, statistic: str, model: Model, metric: Metric) -> float:
        """One number; NaN for a model that has not been scored."""
        models: Models = getattr(self, statistic)
        return models.value(model, metric)


@dataclass(frozen=True, eq=False, kw_only=True)
class MethodResult(Kept):
    """What a summary says about a method: its last round, scored on the test split.

    Attributes:
        rounds: Number of rounds.
        metrics: What a score consists of, the primary metric first.
        clients: Scores by client.
        test: Statistics over the clients.
        validation: The same on the validation split; null where it was not scored.
        weights: pᵢₖ of the last round, averaged over blocks: row i takes from column k.
        similarity: sᵢₖ of the last round, averaged over blocks.
        among: Whose rows and columns these two have, where they are large and of a part of the clients: the
            others were like nobody and kept what they had; absent: all clients'.
        honest: Statistics over the clients that do not attack, where some do.
        sent: How many task vectors each client has sent, of a method that exchanges any.
    """

    FILE: ClassVar[str] = "result.json"
    SEALED: ClassVar[bool] = True

    rounds: int
    metrics: tuple[Metric, ...] = BEFORE_METRICS
    clients: Mapping[str, Models]
    test: Statistics = inline()
    validation: Statistics | None
    weights: Matrix
    similarity: Matrix
    among: tuple[str, ...] | None = optional()
    honest: Statistics | None = optional()
    sent: Mapping[str, int] | None = optional()

    def taken(self, client: str) -> dict[str, float]:
        """What a client took of whom in the last round: its row of the weights, by client."""
        names = list(self.clients) if self.among is None else list(self.among)
        if client not in names:
            return {client: 1.0}
        return dict(zip(names, self.weights[names.index(client)].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline's last round, scored on the test split.

    Attributes:
        clients: Scores by client.
        test: Statistics over the clients.
        honest: Statistics over the clients that do not attack, where some do.
    """

    clients: Mapping[str, Models]
    test: Statistics = inline()
    honest: Statistics | None = optional()

    def scores_of(self, client: str) -> Models:
        """A client's scores."""
        return self.clients[client]


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client of a run.

    Attributes:
        examples: Training examples.
        scores: On its own test split.
        choice: What answers for it, by its validation data, where it chose.
    """

    examples: int
    scores: Models = inline()
    choice: Choice | None = optional()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of all rounds of the method.

    Attributes:
        up: From all clients to the server.
        down: From the server to all clients.
    """

    up: int
    down: int


@dataclass(frozen=True, kw_only=True)
class RunSeconds:
    """Where a run's time went.

    Attributes:
        train: Local training for the method.
        aggregate: The server's steps of the method.
        evaluate: Scoring for the method.
        total: The whole run, baselines and all.
    """

    train: float
    aggregate: float
    evaluate: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A simulated attack.

    Attributes:
        attack: Its kind.
        strength: Its factor.
        clients: Who attacks.
    """

    attack: str
    strength: float
    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Differential privacy of each client.

    Attributes:
        clip: Largest length of a task vector.
        noise_multiplier: Standard deviation of the noise as a multiple of clip.
        delta: δ.
        epsilon: ε after the last round, of the client that has sent most task vectors.
        epsilon_with_baselines: ε of all that the run's methods released together: a baseline's task vectors
            are of the same data; absent where no baseline sent any.
    """

    clip: float
    noise_multiplier: float
    delta: float
    epsilon: float | None
    epsilon_with_baselines: float | None = optional()


@dataclass(frozen=True, eq=False, kw_only=True)
class RunSummary(Kept):
    """The result of a run. The same seed gives the same file, apart from `seconds`.

    Attributes:
        method: Name of the method.
        seed: The run's seed.
        rounds: Number of rounds.
        classes: Names of the classes.
        metrics: What a score consists of, the primary metric first.
        clients: By id, in the order of the rows.
        test: Statistics over the clients.
        validation: The same on the validation split; null where it was not scored.
        baselines: By name.
        bytes: Traffic of the method.
        rejected: How often a client's task vector was not used, for those it happened to.
        seconds: Where the time went.
        weights: pᵢₖ of the last round, averaged over blocks: row i takes from column k.
        similarity: sᵢₖ of the last round, averaged over blocks.
        among: Whose rows and columns these two have, as of `MethodResult`.
        honest: Statistics over the clients that do not attack, where some do.
        hostile: The attack, where there is one.
        privacy: What privacy costs and gives, where there is any.
        data: Digest of the data of all clients; runs are compared only where it is the same.
        versions: Of Python and of the packages that results depend on.
        begun: With which run's models the clients began; absent: at θ₀.
    """

    FILE: ClassVar[str] = "summary.json"

    method: str
    seed: int
    rounds: int
    classes: tuple[str, ...]
    metrics: tuple[Metric, ...] = BEFORE_METRICS
    clients: Mapping[str, Client]
    test: Statistics = inline()
    validation: Statistics | None
    baselines: Mapping[str, Baseline]
    bytes: Traffic
    rejected: Mapping[str, int]
    seconds: RunSeconds
    weights: Matrix
    similarity: Matrix
    among: tuple[str, ...] | None = optional()
    honest: Statistics | None = optional()
    hostile: Attack | None = optional()
    privacy: Privacy | None = optional()
    data: str | None = optional()
    versions: Mapping[str, str] | None = optional()
    begun: Earlier | None = optional()

    @property
    def models(self) -> tuple[Model, ...]:
        """Whose scores there are: of what guards chose, where clients have one."""
        guarded = self.test.mean.chosen is not None
        return ("aggregated", "tuned", "chosen") if guarded else ("aggregated", "tuned")

    @property
    def compared(self) -> tuple[str, ...]:
        """Whose rows and columns `weights` and `similarity` have."""
        return tuple(self.clients) if self.among is None else self.among

    @property
    def primary(self) -> Metric:
        """The metric that tables and pictures follow."""
        return self.metrics[0]

    def scores_of(self, client: str) -> Models:
        """A client's scores."""
        return self.clients[client].scores

    @property
    def floor_name(self) -> str:
        """What the best answer without learning is called: with classes, the most frequent one."""
        return "majority class" if self.classes else "without learning"

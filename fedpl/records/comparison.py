"""What a comparison found: several methods over several seeds on the same clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpl.records.plain import inline, optional
from fedpl.records.record import Kept
from fedpl.records.results import Model
from fedpl.records.scores import Metric, Scores


@dataclass(frozen=True)
class Spread:
    """A number over seeds.

    Attributes:
        mean: Mean.
        sd: Sample standard deviation; null for a single seed.
    """

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float | int]) -> "Spread":
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), sd)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One of a method's models on the test split.

    Attributes:
        scores: Mean over clients of each metric by its name; `worst` and `bottom_decile` of the primary one.
        gain: By how much the primary metric's mean is better than local-only training's, seed by seed; null
            without local-only training.
        harmed: Clients whose primary metric, averaged over seeds, is worse than local-only training's by more
            than the margin; null without local-only training.
        interval: 95 % interval of the gain over local-only training, over clients (Student's t on gains,
            each averaged over seeds); null for one client.
        rank: Mean rank among the methods over clients and seeds by the primary metric, 1 for the best; equal
            ones share theirs.
        harm_probability: How probable so small a mean gain over local-only training were if the signs of the
            clients' gains were chance: a paired sign-flip test over clients, one-sided.
    """

    scores: Mapping[str, Spread] = inline()
    gain: Spread | None
    harmed: tuple[str, ...] | None
    harm_probability: float | None = optional()
    interval: tuple[float, ...] | None = optional()
    rank: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method.

    Attributes:
        aggregated: θ̄, the aggregate as received.
        tuned: θ, after local training.
        bytes: Traffic both ways.
        seconds: Training, aggregation and scoring; a shared first round counts for each run.
        chosen: What clients' guards chose, where all clients have one.
    """

    aggregated: ModelEntry
    tuned: ModelEntry
    bytes: Spread
    seconds: Spread
    chosen: ModelEntry | None = optional()

    def of(self, model: str) -> ModelEntry:
        """aggregated or tuned; chosen, where it is there."""
        entry: ModelEntry = getattr(self, model)
        return entry


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """A run.

    Attributes:
        method: Name of the method.
        seed: Its seed.
        run_dir: Name of its directory.
        aggregated: Of θ̄: mean over clients of each metric; `worst` and `bottom_decile` of the primary one.
        tuned: The same of θ.
        bytes: Traffic both ways.
        seconds: Training, aggregation and scoring; a shared first round counts for each run.
        chosen: The same of what guards chose.
    """

    method: str
    seed: int
    run_dir: str
    aggregated: Scores
    tuned: Scores
    bytes: int
    seconds: float
    chosen: Scores | None = optional()

    def of(self, model: str) -> Scores:
        """aggregated or tuned; chosen, where it is there."""
        scores: Scores = getattr(self, model)
        return scores


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods over the same clients, each client's difference averaged over seeds.

    Attributes:
        model: aggregated, tuned or chosen.
        first: A method.
        second: Another.
        difference: By how much the first is better on average.
        interval: 95 % interval of that over clients (Student's t); null for one client.
        probability: Of so large a mean difference either way, were the signs of the differences chance.
        adjusted: The same, corrected for all pairs of the model (Holm).
        clients: How many have a score of both in every seed.
    """

    model: str
    first: str
    second: str
    difference: float
    interval: tuple[float, ...] | None
    probability: float
    adjusted: float
    clients: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Kept):
    """The result of a comparison.

    Attributes:
        seeds: The seeds.
        rounds: Number of rounds.
        metrics: What a score consists of, the primary metric first.
        harm_margin: From which loss of the primary metric on, in its own numbers, a client counts as harmed.
        methods: By name.
        runs: Every method with every seed.
        pairs: Every two methods.
    """

    FILE: ClassVar[str] = "comparison.json"

    seeds: tuple[int, ...]
    rounds: int
    metrics: tuple[Metric, ...]
    harm_margin: float
    methods: Mapping[str, MethodEntry]
    runs: tuple[RunEntry, ...]
    pairs: tuple[Pair, ...] | None = optional()

    @property
    def models(self) -> tuple[Model, ...]:
        """Of what there are scores; what guards chose, where all methods' clients have one."""
        guarded = all(entry.chosen is not None for entry in self.methods.values())
        return ("aggregated", "tuned", "chosen") if guarded else ("aggregated", "tuned")

    @property
    def primary(self) -> Metric:
        """The metric that tables and pictures follow."""
        return self.metrics[0]

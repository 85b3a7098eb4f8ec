"""Records made by hand, for the tests of whatever reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpl.config import Config
from fedpl.records.messages import Census, Member, Seconds
from fedpl.records.results import MethodResult, Models, RunSummary, Statistics
from fedpl.records.rounds import ByClient, RoundRecord, SplitScores, diagnostics
from fedpl.records.scores import Metric, Scores, Summary, summarise
from fedpl.runs.origin import Origin
from fedpl.runs.summary import run_summary
from fedpl.tasks.metrics import CLASSIFICATION

# What a run began with, for tests of its folder alone.
ORIGIN = Origin(settings=Config().to_yaml(), data="0" * 32, start="0" * 32, versions={"python": "3"})
# Another kind of task: of its primary metric less is better, and it has no unit.
REGRESSION = (Metric("rmse", "", higher=False), Metric("pearson"))


def scores(value: float, metrics: Sequence[Metric] = CLASSIFICATION) -> Scores:
    """The same value by every metric."""
    return {metric.name: value for metric in metrics}


def result(
    values: Mapping[str, float],
    metrics: Sequence[Metric] = CLASSIFICATION,
    tuned: Sequence[str] | None = None,
) -> MethodResult:
    """A method whose models have these scores; `tuned` names the clients that have a tuned model."""
    aggregated = {client: scores(value, metrics) for client, value in values.items()}
    after = {client: own for client, own in aggregated.items() if tuned is None or client in tuned}
    found = [summarise(model, metrics) for model in (aggregated, after)]
    both = {n: Models(aggregated=getattr(found[0], n), tuned=getattr(found[1], n)) for n in Summary._fields}
    matrix = np.full((len(values), len(values)), 1 / 3, np.float32)
    return MethodResult(
        rounds=1,
        metrics=tuple(metrics),
        clients={c: Models(aggregated=aggregated[c], tuned=after.get(c)) for c in values},
        test=Statistics(**both),
        validation=None,
        weights=matrix,
        similarity=matrix / 3,
    )


def summary(
    values: Mapping[str, float],
    metrics: Sequence[Metric] = CLASSIFICATION,
    baselines: Mapping[str, MethodResult] | None = None,
    **changes: Any,
) -> RunSummary:
    """A run of one round in which every model has these scores and the floor is 0.25."""
    floor = scores(0.25, metrics)
    members = tuple(Member(client, 16, floor, "") for client in values)
    labels = ("no", "yes") if tuple(metrics) == CLASSIFICATION else ()
    census = Census(members, None, None, tuple(metrics), labels, "")  # type: ignore[arg-type]
    found = result(values, metrics, **changes)
    rounds = [record(values, metrics)]
    return run_summary("m", 0, census, found, baselines or {}, rounds, 2.0)


def record(
    values: Mapping[str, float], metrics: Sequence[Metric] = CLASSIFICATION, **changes: Any
) -> RoundRecord:
    """A round whose validation scores are these."""
    by_client = {client: scores(value, metrics) for client, value in values.items()}
    found, matrix = summarise(by_client, metrics), np.eye(len(values))
    both = {client: Models(aggregated=own, tuned=own) for client, own in by_client.items()}
    content: dict[str, Any] = {
        "round": 1,
        "method": "m",
        "train_loss": 0.25,
        "steps": 3,
        "drawn": len(values),
        "participants": len(values),
        "bytes_up": 1,
        "bytes_down": 2,
        "seconds": Seconds(1.0, 0.5, 0.25),
        "rejected": {},
        "validation": SplitScores(aggregated=found, tuned=found, clients=both),
        "clients": ByClient(
            id=tuple(values),
            train_loss=(0.25,) * len(values),
            age=(0,) * len(values),
            **diagnostics(matrix, matrix, range(len(matrix)), len(matrix)),
        ),
        "metrics": tuple(metrics),
    }
    return RoundRecord(**content | changes)


class Stopping:
    """A watcher that interrupts a run after so many rounds."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def round(self, record: object, result: object) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def finish(self, summary: object) -> None: ...

"""From what the rounds gave to what is recorded of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedpl.records.choice import Choice
from fedpl.records.messages import Census, Seconds
from fedpl.records.plain import LARGEST
from fedpl.records.results import (
    Baseline,
    Client,
    MethodResult,
    Models,
    RunSeconds,
    RunSummary,
    Statistics,
    Traffic,
)
from fedpl.records.rounds import (
    ByClient,
    RoundRecord,
    SplitScores,
    diagnostics,
    mean_over_blocks,
    over_all,
)
from fedpl.records.scores import Metric, Scores, Summary, summarise
from fedpl.rounds.loop import RoundResult


def round_record(
    method: str,
    clients: tuple[str, ...],
    result: RoundResult,
    metrics: Sequence[Metric],
    epsilon: float | None = None,
) -> RoundRecord:
    """A round as it is recorded.

    Args:
        method: Name of the method.
        clients: Client ids, in the order of the rows.
        result: The round.
        metrics: What a score consists of.
        epsilon: ε of differential privacy after it, where there is any.
    """
    matrices = mean_over_blocks(result.similarity), mean_over_blocks(result.weights)
    losses = {report.client: report.loss for report in result.reports}
    told, agreement = result.ledger.told, result.ledger.agreement
    splits = {
        split: SplitScores(
            aggregated=summarise(aggregated, metrics),
            tuned=summarise(result.tuned(split), metrics),
            clients=_by_client(clients, aggregated, result.tuned(split)),
        )
        for split, aggregated in result.aggregated.items()
        if aggregated  # else no client has data of it
    }
    return RoundRecord(
        round=result.round,
        method=method,
        train_loss=sum(losses.values()) / len(losses),
        steps=sum(report.steps for report in result.reports),
        drawn=result.drawn,
        participants=len(result.reports),
        bytes_up=result.bytes_up,
        bytes_down=result.bytes_down,
        seconds=result.seconds,
        rejected=dict(result.rejected),
        noticed=dict(result.noticed) or None,
        epsilon=epsilon,
        validation=splits.get("validation"),
        test=splits.get("test"),
        clients=ByClient(
            id=clients,
            train_loss=tuple(losses.get(client) for client in clients),
            age=tuple(result.ledger.age.tolist()),
            halves=tuple(None if h != h else h for h in agreement.tolist()) if told.any() else None,
            **diagnostics(*matrices, result.rows, len(clients)),
        ),
        metrics=tuple(metrics),
    )


def method_result(
    clients: tuple[str, ...],
    result: RoundResult,
    metrics: Sequence[Metric],
    honest: Collection[str] | None = None,
    sends: bool = True,
) -> MethodResult:
    """What a summary says about a method: its last round, scored on the test split.

    Args:
        clients: Client ids, in the order of the rows.
        result: The last round.
        metrics: What a score consists of.
        honest: The clients that do not attack, where some do: they are also counted by themselves.
        sends: Whether clients send anything.
    """

    def statistics(split: str, among: Collection[str] | None = None) -> Statistics:
        found = []
        for scores in (result.aggregated[split], result.tuned(split)):
            counted = {c: own for c, own in scores.items() if among is None or c in among}
            found.append(summarise(counted, metrics) if counted else None)
        return _statistics(*found)

    aggregated, tuned = result.aggregated["test"], result.tuned("test")
    weights, similarity = mean_over_blocks(result.weights), mean_over_blocks(result.similarity)
    few = len(result.rows) < len(clients) and len(clients) > LARGEST
    if not few:
        weights = over_all(weights, result.rows, len(clients), 1.0)
        similarity = over_all(similarity, result.rows, len(clients), 0.0)
    return MethodResult(
        rounds=result.round,
        metrics=tuple(metrics),
        clients=_by_client(clients, aggregated, tuned),
        test=statistics("test"),
        validation=statistics("validation") if result.aggregated.get("validation") else None,
        weights=weights,
        similarity=similarity,
        among=tuple(clients[row] for row in result.rows) if few else None,
        honest=None if honest is None else statistics("test", honest),
        sent=dict(zip(clients, result.ledger.sent.tolist(), strict=True)) if sends else None,
    )


def run_summary(
    method: str,
    seed: int,
    census: Census,
    result: MethodResult,
    baselines: Mapping[str, MethodResult],
    records: Sequence[RoundRecord],
    seconds: float,
    choices: Mapping[str, Choice] | None = None,
) -> RunSummary:
    """The summary of a run.

    Args:
        method: Name of the method.
        seed: The run's seed.
        census: All clients.
        result: The method's.
        baselines: The same of every baseline.
        records: The method's rounds, for their traffic and time.
        seconds: What the whole run took.
        choices: What answers for each client, where they chose.
    """
    floors = {member.client: member.floor for member in census.members}
    known = {client: floor for client, floor in floors.items() if floor is not None}
    spent = {part: sum(getattr(r.seconds, part) for r in records) for part in Seconds._fields}
    chosen = {client: own.test for client, own in (choices or {}).items() if own.test is not None}
    return RunSummary(
        method=method,
        seed=seed,
        rounds=result.rounds,
        classes=census.labels,
        metrics=census.metrics,
        clients={
            member.client: Client(
                examples=member.examples,
                scores=_beside(
                    result.clients[member.client], floors[member.client], chosen.get(member.client)
                ),
                choice=None if choices is None else replace(choices[member.client], test=None),
            )
            for member in census.members
        },
        test=_all_beside(
            result.test,
            summarise(known, census.metrics),
            summarise(chosen, census.metrics) if chosen else None,
        ),
        validation=result.validation,
        baselines={
            name: Baseline(clients=other.clients, test=other.test, honest=other.honest)
            for name, other in baselines.items()
        },
        bytes=Traffic(up=sum(r.bytes_up for r in records), down=sum(r.bytes_down for r in records)),
        rejected=dict(Counter(client for record in records for client in record.rejected)),
        seconds=RunSeconds(**spent, total=seconds),
        weights=result.weights,
        similarity=result.similarity,
        among=result.among,
        honest=result.honest,
    )


def _by_client(
    clients: Sequence[str], aggregated: Mapping[str, Scores], tuned: Mapping[str, Scores]
) -> dict[str, Models]:
    """Scores of each model by client; None for those whose model has not been scored."""
    return {c: Models(aggregated=aggregated.get(c), tuned=tuned.get(c)) for c in clients}


def _statistics(aggregated: Summary | None, tuned: Summary | None) -> Statistics:
    """Statistics of each model; None for one that has not been scored."""
    by_name = {
        name: Models(
            aggregated=None if aggregated is None else getattr(aggregated, name),
            tuned=None if tuned is None else getattr(tuned, name),
        )
        for name in Summary._fields
    }
    return Statistics(**by_name)


def _all_beside(statistics: Statistics, floor: Summary, chosen: Summary | None) -> Statistics:
    """The same with the floors, and with what guards chose, beside."""
    return Statistics(
        **{
            name: _beside(
                getattr(statistics, name),
                getattr(floor, name),
                None if chosen is None else getattr(chosen, name),
            )
            for name in Summary._fields
        }
    )


def _beside(models: Models, floor: Scores | None, chosen: Scores | None) -> Models:
    return replace(models, majority=floor, chosen=chosen)

"""From the summaries of runs to the comparison: means and standard deviations over seeds, clients harmed."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from fedpl.compare.paired import (
    adjusted,
    difference_probability,
    harm_probability,
    interval,
    mean_ranks,
)
from fedpl.errors import UserError
from fedpl.records.comparison import Comparison, MethodEntry, ModelEntry, Pair, RunEntry, Spread
from fedpl.records.results import Model, RunSummary
from fedpl.records.scores import Metric, Scores, is_harmed

MODELS: tuple[Model, ...] = ("aggregated", "tuned")
TAILS = ("worst", "bottom_decile")


def score_names(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """What is compared: each metric's mean over clients by its name, and the primary one's tails."""
    return (*(metric.name for metric in metrics), *TAILS)


def scores(summary: RunSummary, model: Model) -> Scores:
    """One run's test scores: mean of each metric over clients; worst client and decile of the primary one."""
    means = {metric.name: summary.test.value("mean", model, metric) for metric in summary.metrics}
    return means | {tail: summary.test.value(tail, model, summary.primary) for tail in TAILS}


def client_scores(summaries: Sequence[RunSummary], model: Model) -> dict[str, float]:
    """The primary metric on test data, averaged over seeds, of each client that has one in every seed."""
    metric, found = summaries[0].primary, {}
    for client in summaries[0].clients:
        if not all(client in summary.clients for summary in summaries):
            continue  # small clients that were dropped: who they are may depend on the seed
        own = [summary.clients[client].scores.value(model, metric) for summary in summaries]
        if not any(map(math.isnan, own)):
            found[client] = float(np.mean(own))
    return found


def harmed(
    summaries: Sequence[RunSummary], local: Sequence[RunSummary], model: Model, margin: float
) -> tuple[str, ...]:
    """Clients whose primary metric, averaged over seeds, is worse than local-only training's by a margin.

    Args:
        summaries: The method's runs.
        local: Local-only training on the same seeds.
        model: aggregated, tuned or chosen.
        margin: In the metric's own numbers: of accuracy as a fraction.
    """
    metric = summaries[0].primary
    alone, found = client_scores(local, model), client_scores(summaries, model)
    both = found.keys() & alone.keys()
    return tuple(sorted(client for client in both if is_harmed(found[client], alone[client], metric, margin)))


def compare(folders: Mapping[str, Mapping[int, Path]], margin: float) -> Comparison:
    """Compare finished runs.

    Args:
        folders: Run directories by method and seed.
        margin: From which loss of the primary metric on, in its own numbers, a client counts as harmed.

    Raises:
        UserError: If a run is not finished, or scored by other metrics than the others.
    """
    summaries = {
        method: [RunSummary.read(folder) for folder in runs.values()] for method, runs in folders.items()
    }
    first = next(iter(summaries.values()))[0]
    for method, found in summaries.items():
        for seed, summary in zip(folders[method], found, strict=True):
            if summary.metrics != first.metrics:
                raise UserError(f"{folders[method][seed]}: scored by other metrics than {first.method}")
    for runs in zip(*summaries.values(), strict=True):  # of one seed
        if len({run.data for run in runs if run.data is not None}) > 1:
            raise UserError(f"seed {runs[0].seed}: {', '.join(folders)} were not run on the same data")
    local = summaries.get("local")
    guarded = all("chosen" in own.models for found in summaries.values() for own in found)
    models: tuple[Model, ...] = (*MODELS, "chosen") if guarded else MODELS
    ranks = {model: _ranks(summaries, model) for model in models}
    return Comparison(
        seeds=tuple(next(iter(folders.values()))),
        rounds=first.rounds,
        metrics=first.metrics,
        harm_margin=margin,
        methods={
            name: _method(found, local, margin, {model: ranks[model].get(name) for model in models})
            for name, found in summaries.items()
        },
        runs=tuple(
            RunEntry(
                method=method,
                seed=seed,
                run_dir=folders[method][seed].name,
                aggregated=scores(summary, "aggregated"),
                tuned=scores(summary, "tuned"),
                bytes=_traffic(summary),
                seconds=_seconds(summary),
                chosen=scores(summary, "chosen") if guarded else None,
            )
            for method, found in summaries.items()
            for seed, summary in zip(folders[method], found, strict=True)
        ),
        pairs=tuple(pair for model in models for pair in _pairs(summaries, model)),
    )


def _ranks(summaries: Mapping[str, Sequence[RunSummary]], model: Model) -> dict[str, float]:
    """Mean rank of each method over the clients and seeds in which all have a score; empty where none is."""
    metric = next(iter(summaries.values()))[0].primary
    cases = [
        row
        for runs in zip(*summaries.values(), strict=True)
        for client in runs[0].clients
        if all(client in run.clients for run in runs)
        for row in [[run.scores_of(client).value(model, metric) for run in runs]]
        if not any(map(math.isnan, row))
    ]
    if not cases:
        return {}
    return dict(zip(summaries, mean_ranks(np.array(cases), metric.higher), strict=True))


def _pairs(summaries: Mapping[str, Sequence[RunSummary]], model: Model) -> list[Pair]:
    """Every two methods on the clients that both have scored in every seed."""
    metric = next(iter(summaries.values()))[0].primary
    by_client = {name: client_scores(runs, model) for name, runs in summaries.items()}
    found = []
    for first, second in combinations(summaries, 2):
        one, other = by_client[first], by_client[second]
        differences = [metric.sign * (one[client] - other[client]) for client in one if client in other]
        if differences:
            found.append((first, second, differences))
    chances = [difference_probability(differences) for *_, differences in found]
    return [
        Pair(
            model=model,
            first=first,
            second=second,
            difference=float(np.mean(differences)),
            interval=interval(differences),
            probability=chance,
            adjusted=corrected,
            clients=len(differences),
        )
        for (first, second, differences), chance, corrected in zip(
            found, chances, adjusted(chances), strict=True
        )
    ]


def _method(
    summaries: Sequence[RunSummary],
    local: Sequence[RunSummary] | None,
    margin: float,
    ranks: Mapping[Model, float | None],
) -> MethodEntry:
    return MethodEntry(
        **{model: _model(summaries, local, model, margin, rank) for model, rank in ranks.items()},
        bytes=Spread.of([_traffic(summary) for summary in summaries]),
        seconds=Spread.of([_seconds(summary) for summary in summaries]),
    )


def _model(
    summaries: Sequence[RunSummary],
    local: Sequence[RunSummary] | None,
    model: Model,
    margin: float,
    rank: float | None,
) -> ModelEntry:
    found = [scores(summary, model) for summary in summaries]
    names = score_names(summaries[0].metrics)
    gains = [] if local is None or local is summaries else _gains(summaries, local, model)
    return ModelEntry(
        scores={name: Spread.of([run[name] for run in found]) for name in names},
        gain=None if local is None else _gain(summaries, local, model),
        harmed=None if local is None else harmed(summaries, local, model, margin),
        harm_probability=harm_probability(gains) if gains else None,
        interval=interval(gains),
        rank=rank,
    )


def _gains(summaries: Sequence[RunSummary], local: Sequence[RunSummary], model: Model) -> list[float]:
    """Of each client that has been scored both ways in every seed, averaged over seeds."""
    metric = summaries[0].primary
    found, alone = client_scores(summaries, model), client_scores(local, model)
    return [metric.sign * (found[client] - alone[client]) for client in found if client in alone]


def _gain(summaries: Sequence[RunSummary], local: Sequence[RunSummary], model: Model) -> Spread:
    """By how much the primary metric's mean is better, seed by seed on the same clients."""
    metric = summaries[0].primary
    means = [[run.test.value("mean", model, metric) for run in runs] for runs in (summaries, local)]
    return Spread.of([metric.sign * (own - alone) for own, alone in zip(*means, strict=True)])


def _traffic(summary: RunSummary) -> int:
    """Bytes both ways."""
    return summary.bytes.up + summary.bytes.down


def _seconds(summary: RunSummary) -> float:
    """Seconds of all rounds; a shared first round counts for each run."""
    return summary.seconds.train + summary.seconds.aggregate + summary.seconds.evaluate

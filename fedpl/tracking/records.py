"""What is said about a round and about a run, as plain values that JSON holds."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from fedpl.data import FederatedData
from fedpl.rounds.loop import RoundResult
from fedpl.scores import Scores, score, summarise

Matrix = Float[np.ndarray, "clients clients"]


def mean_over_blocks(matrices: Float[np.ndarray, "blocks clients clients"]) -> Matrix:
    """The blocks' matrices as one; the matrix itself when the whole model is one block."""
    return matrices.mean(0)


def diagnostics(similarity: Matrix, weights: Matrix) -> dict[str, list[float]]:
    """Per client: Σⱼ sᵢⱼ (the normaliser), Σₖ |pᵢₖ|, effective neighbours 1 / Σₖ pᵢₖ², self-weight pᵢᵢ."""
    return {
        "row_sum": similarity.sum(1).tolist(),
        "absolute_weight": np.abs(weights).sum(1).tolist(),
        "effective_neighbours": (1 / np.square(weights).sum(1)).tolist(),
        "self_weight": np.diagonal(weights).tolist(),
    }


def statistics(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, worst and bottom decile over clients."""
    return {name: value._asdict() for name, value in summarise(scores)._asdict().items()}


def round_record(method: str, clients: tuple[str, ...], result: RoundResult) -> dict[str, Any]:
    """A round as one line of metrics.jsonl."""
    similarity, weights = mean_over_blocks(result.similarity), mean_over_blocks(result.weights)
    losses = [update.loss for update in result.updates]
    record = {
        "round": result.round,
        "method": method,
        "train_loss": sum(losses) / len(losses),
        "steps": sum(update.steps for update in result.updates),
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "seconds": vars(result.seconds),
    }
    for split, aggregated in result.aggregated.items():
        tuned = result.tuned(split)
        record[split] = {
            "aggregated": statistics(aggregated),
            "tuned": statistics(tuned),
            "clients": {
                client: {"aggregated": aggregated[client]._asdict(), "tuned": tuned[client]._asdict()}
                for client in clients
            },
        }
    record["clients"] = {
        "id": list(clients),
        "train_loss": losses,
        **diagnostics(similarity, weights),
    }
    return finite(record)


def run_summary(
    method: str,
    seed: int,
    data: FederatedData,
    results: list[RoundResult],
    baselines: Mapping[str, RoundResult],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of summary.json; the README documents its schema.

    Args:
        method: Name of the method.
        seed: The run's seed.
        data: All clients.
        results: All rounds, for their seconds; scores are the last round's.
        baselines: Last round of every baseline.
        seconds: Where the run's time went.
    """
    last = results[-1]
    majority = {c.id: score(c.test.labels, [c.majority()] * len(c.test)) for c in data.clients}
    models = {"aggregated": last.aggregated["test"], "tuned": last.tuned("test"), "majority": majority}
    summary: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "rounds": last.round,
        "classes": list(data.classes),
        "clients": {
            client.id: {
                "examples": len(client.train),
                **{name: scores[client.id]._asdict() for name, scores in models.items()},
            }
            for client in data.clients
        },
        **_by_statistic(models),
        "validation": _by_statistic(
            {"aggregated": last.aggregated["validation"], "tuned": last.tuned("validation")}
        )
        if "validation" in last.aggregated
        else None,
        "baselines": {name: _baseline(result) for name, result in baselines.items()},
        "bytes": {
            "up": sum(result.bytes_up for result in results),
            "down": sum(result.bytes_down for result in results),
        },
        "seconds": dict(seconds),
        "weights": mean_over_blocks(last.weights).tolist(),
        "similarity": mean_over_blocks(last.similarity).tolist(),
    }
    return finite(summary)


def _baseline(result: RoundResult) -> dict[str, Any]:
    models = {"aggregated": result.aggregated["test"], "tuned": result.tuned("test")}
    clients = {
        client: {name: scores[client]._asdict() for name, scores in models.items()}
        for client in models["aggregated"]
    }
    return {"clients": clients, **_by_statistic(models)}


def _by_statistic(models: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """{"mean": {"aggregated": ..., "tuned": ...}, "std": ..., "worst": ..., "bottom_decile": ...}"""
    by_model = {name: statistics(scores) for name, scores in models.items()}
    names = ("mean", "std", "worst", "bottom_decile")
    return {name: {model: values[name] for model, values in by_model.items()} for name in names}


def finite(value: Any) -> Any:
    """The same value with NaN and infinity as null, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

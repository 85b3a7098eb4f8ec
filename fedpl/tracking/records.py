"""What is said about a round and about a run, as plain values that JSON holds."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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


def round_record(
    method: str, clients: tuple[str, ...], result: RoundResult, epsilon: float | None = None
) -> dict[str, Any]:
    """A round as one line of metrics.jsonl.

    Args:
        method: Name of the method.
        clients: Client ids, in the order of the rows.
        result: The round.
        epsilon: ε of differential privacy after it, where there is any.
    """
    similarity, weights = mean_over_blocks(result.similarity), mean_over_blocks(result.weights)
    losses = {update.client: update.loss for update in result.updates}
    record: dict[str, Any] = {
        "round": result.round,
        "method": method,
        "train_loss": sum(losses.values()) / len(losses),
        "steps": sum(update.steps for update in result.updates),
        "drawn": result.drawn,
        "participants": len(result.updates),
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "seconds": vars(result.seconds),
        "rejected": dict(result.rejected),
    }
    if epsilon is not None:
        record["epsilon"] = epsilon
    for split, aggregated in result.aggregated.items():
        tuned = result.tuned(split)
        record[split] = {
            "aggregated": statistics(aggregated),
            "tuned": statistics(tuned),
            "clients": _by_client(clients, {"aggregated": aggregated, "tuned": tuned}),
        }
    record["clients"] = {
        "id": list(clients),
        "train_loss": [losses.get(client) for client in clients],
        "age": result.ledger.age.tolist(),
        **diagnostics(similarity, weights),
    }
    return finite(record)


def method_result(result: RoundResult, honest: Collection[str] | None = None) -> dict[str, Any]:
    """What a summary says about a method: its last round, scored on the test split.

    Args:
        result: The last round.
        honest: The clients that do not attack, where some do: they are also counted by themselves.
    """
    models = {"aggregated": result.aggregated["test"], "tuned": result.tuned("test")}
    found: dict[str, Any] = {
        "rounds": result.round,
        "clients": _by_client(tuple(models["aggregated"]), models),
        **_by_statistic(models),
        "validation": None,
        "weights": mean_over_blocks(result.weights).tolist(),
        "similarity": mean_over_blocks(result.similarity).tolist(),
    }
    if "validation" in result.aggregated:
        found["validation"] = _by_statistic(
            {"aggregated": result.aggregated["validation"], "tuned": result.tuned("validation")}
        )
    if honest is not None:
        found["honest"] = _by_statistic(
            {
                model: {client: scores[client] for client in scores if client in honest}
                for model, scores in models.items()
            }
        )
    return finite(found)


def run_summary(
    method: str,
    seed: int,
    data: FederatedData,
    result: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of summary.json; the README documents its schema.

    Args:
        method: Name of the method.
        seed: The run's seed.
        data: All clients.
        result: From `method_result`, of the method.
        baselines: The same of every baseline.
        records: The method's rounds, for their traffic.
        seconds: Where the run's time went.
    """
    majority = {c.id: score(c.test.labels, [c.majority()] * len(c.test)) for c in data.clients}
    beside = statistics(majority)
    summary: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "rounds": result["rounds"],
        "classes": list(data.classes),
        "clients": {
            client.id: {
                "examples": len(client.train),
                **result["clients"][client.id],
                "majority": majority[client.id]._asdict(),
            }
            for client in data.clients
        },
        **{name: {**result[name], "majority": values} for name, values in beside.items()},
        "validation": result["validation"],
        "baselines": {name: _baseline(other) for name, other in baselines.items()},
        "bytes": {way: sum(record[f"bytes_{way}"] for record in records) for way in ("up", "down")},
        "rejected": dict(Counter(client for record in records for client in record["rejected"])),
        "seconds": dict(seconds),
        "weights": result["weights"],
        "similarity": result["similarity"],
    }
    if "honest" in result:
        summary["honest"] = result["honest"]
    return finite(summary)


def _baseline(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("clients", "mean", "std", "worst", "bottom_decile", "honest")
    return {name: result[name] for name in names if name in result}


def _by_client(
    clients: Sequence[str], models: Mapping[str, Mapping[str, Scores]]
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Scores of each model by client; null for those whose model has not been scored."""
    return {
        client: {
            name: scores[client]._asdict() if client in scores else None for name, scores in models.items()
        }
        for client in clients
    }


def _by_statistic(models: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """{"mean": {"aggregated": ..., "tuned": ...}, "std": ..., "worst": ..., "bottom_decile": ...}"""
    by_model = {name: statistics(scores) for name, scores in models.items() if scores}
    names = ("mean", "std", "worst", "bottom_decile")
    return {
        name: {model: by_model[model][name] if model in by_model else None for model in models}
        for name in names
    }


def finite(value: Any) -> Any:
    """The same value with NaN and infinity as null, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

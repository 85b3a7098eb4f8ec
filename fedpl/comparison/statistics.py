"""From the summaries of runs to the comparison: means and standard deviations over seeds, clients harmed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MODELS = ("aggregated", "tuned")
SCORES = ("accuracy", "macro_f1", "worst", "bottom_decile")


class Spread(NamedTuple):
    """A number over seeds.

    Attributes:
        mean: Mean.
        sd: Sample standard deviation; None for a single seed.
    """

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float | int]) -> "Spread":
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), sd)


def scores(summary: dict[str, Any], model: str) -> dict[str, float]:
    """One run's test scores: mean accuracy and macro-F1, accuracy of the worst client and lowest decile."""
    return {
        "accuracy": summary["mean"][model]["accuracy"],
        "macro_f1": summary["mean"][model]["macro_f1"],
        "worst": summary["worst"][model]["accuracy"],
        "bottom_decile": summary["bottom_decile"][model]["accuracy"],
    }


def client_accuracy(summaries: Sequence[dict[str, Any]], model: str) -> dict[str, float]:
    """Test accuracy, averaged over seeds, of each client that has one in every seed."""
    found = {}
    for client in summaries[0]["clients"]:
        scores = [summary["clients"][client].get(model) for summary in summaries]
        if all(scores):
            found[client] = float(np.mean([score["accuracy"] for score in scores]))
    return found


def harmed(
    summaries: Sequence[dict[str, Any]], local: Sequence[dict[str, Any]], model: str, margin: float
) -> list[str]:
    """Clients whose accuracy, averaged over seeds, lies more than a margin below local-only training's.

    Args:
        summaries: The method's runs.
        local: Local-only training on the same seeds.
        model: aggregated or tuned.
        margin: As a fraction.
    """
    alone, found = client_accuracy(local, model), client_accuracy(summaries, model)
    # Means of the same fractions may differ in the last bit.
    return sorted(c for c in found.keys() & alone.keys() if found[c] < alone[c] - margin - 1e-9)


def compare(folders: dict[str, dict[int, Path]], margin: float) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
        folders: Finished run directories by method and seed.
        margin: From which loss of accuracy on, as a fraction, a client counts as harmed.
    """
    summaries = {
        method: [
            json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in runs.values()
        ]
        for method, runs in folders.items()
    }
    local = summaries.get("local")
    return {
        "seeds": list(next(iter(folders.values()))),
        "rounds": next(iter(summaries.values()))[0]["rounds"],
        "harm_margin": margin,
        "methods": {name: _method(found, local, margin) for name, found in summaries.items()},
        "runs": [
            {
                "method": method,
                "seed": seed,
                "run_dir": folders[method][seed].name,
                **{model: scores(summary, model) for model in MODELS},
                **_cost(summary),
            }
            for method, found in summaries.items()
            for seed, summary in zip(folders[method], found, strict=True)
        ],
    }


def _method(
    summaries: Sequence[dict[str, Any]], local: Sequence[dict[str, Any]] | None, margin: float
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for model in MODELS:
        found = [scores(summary, model) for summary in summaries]
        entry[model] = {name: Spread.of([run[name] for run in found])._asdict() for name in SCORES}
        entry[model] |= _against_local(summaries, local, model, margin)
    costs = [_cost(summary) for summary in summaries]
    return entry | {name: Spread.of([cost[name] for cost in costs])._asdict() for name in costs[0]}


def _against_local(
    summaries: Sequence[dict[str, Any]], local: Sequence[dict[str, Any]] | None, model: str, margin: float
) -> dict[str, Any]:
    """Gain in accuracy, seed by seed on the same clients, and who is harmed; None without local-only runs."""
    if local is None:
        return {"gain": None, "harmed": None}
    pairs = zip(summaries, local, strict=True)
    gains = [scores(run, model)["accuracy"] - scores(alone, model)["accuracy"] for run, alone in pairs]
    return {"gain": Spread.of(gains)._asdict(), "harmed": harmed(summaries, local, model, margin)}


def _cost(summary: dict[str, Any]) -> dict[str, float | int]:
    """Traffic both ways, and seconds of all rounds; a shared first round counts for each run."""
    seconds = summary["seconds"]
    return {
        "bytes": summary["bytes"]["up"] + summary["bytes"]["down"],
        "seconds": seconds["train"] + seconds["aggregate"] + seconds["evaluate"],
    }

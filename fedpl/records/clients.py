"""The clients of a finished run as rows of a table."""

from typing import Any

from fedpl.records.choice import OTHERS
from fedpl.records.results import Client, RunSummary


def client_rows(summary: RunSummary) -> dict[str, dict[str, Any]]:
    """Examples, scores of every model, own weight of the last round and what was chosen, by client.

    Args:
        summary: Of a finished run.
    """
    place = {client: row for row, client in enumerate(summary.compared)}
    rows = {}
    for client, own in summary.clients.items():
        models = {
            "aggregated": own.scores.aggregated,
            "tuned": own.scores.tuned,
            **({} if own.choice is None else {"chosen": own.scores.chosen}),
            "floor": own.scores.majority,
            **{name: other.clients[client].aggregated for name, other in summary.baselines.items()},
        }
        scores = {
            f"{model}/{metric.name}": None if found is None else found[metric.name]
            for model, found in models.items()
            for metric in summary.metrics
        }
        row = place.get(client)
        rows[client] = {
            "examples": own.examples,
            **scores,
            "own weight": 1.0 if row is None else float(summary.weights[row, row]),
            "rejected": summary.rejected.get(client, 0),
            **_choice(own),
        }
    return rows


def _choice(own: Client) -> dict[str, Any]:
    """What answers for a client, and by which intervals it chose that; nothing where it did not."""
    if own.choice is None:
        return {}
    found: dict[str, Any] = {"chosen": own.choice.model, "validation examples": own.choice.examples}
    for name in OTHERS:
        over = own.choice.over.get(name)
        ends: dict[str, float | None] = {"": None, " low": None, " high": None}
        if over is not None:
            ends = {"": over.mean, " low": over.low, " high": over.high}
        found |= {f"{name} over aggregated{end}": value for end, value in ends.items()}
    return found

"""Whose task vector of a round can be used. What cannot is put aside, with the reason."""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.rounds.executor import ClientUpdate


def vet(
    updates: Sequence[ClientUpdate],
    asked: Mapping[str, int],
    late: Collection[str],
    matrix: Float[Tensor, "clients params"],
    max_norm: float | None,
) -> dict[str, str]:
    """Why answers cannot be used, by client; clients that are not named can.

    A row of the matrix cannot have another shape or type than the others: an executor that receives
    something else fails when it fills the row, and that is an error of this client.

    Args:
        updates: What was reported.
        asked: The row of every client that was asked.
        late: Clients whose answer came after the round had closed.
        matrix: Task vectors.
        max_norm: Longest usable vector, as a multiple of the median length; None: any.
    """
    found: dict[str, str] = {}
    for client, times in Counter(update.client for update in updates).items():
        if times > 1:
            # The later answer has overwritten the earlier one: neither can be told from a forgery.
            found[client] = f"answered {times} times"
    owner = {row: client for client, row in asked.items()}
    for update in updates:
        if update.client not in asked:
            reason = "was not asked"
        elif update.row != asked[update.client]:
            reason = f"answered for row {update.row}, its own is {asked[update.client]}"
        elif update.examples < 1:
            reason = f"claims {update.examples} training examples"
        elif update.client in late:
            reason = "answered late"
        else:
            continue
        found.setdefault(update.client, reason)
        victim = owner.get(update.row)
        if victim not in (None, update.client):
            found.setdefault(victim, f"its row was filled by '{update.client}'")
    usable = [update for update in updates if update.client not in found]
    return found | _bad_lengths({u.client: _length(matrix[u.row]) for u in usable}, max_norm)


def _bad_lengths(lengths: Mapping[str, float], max_norm: float | None) -> dict[str, str]:
    found = {c: "its task vector is not finite" for c, size in lengths.items() if not math.isfinite(size)}
    finite = {client: size for client, size in lengths.items() if client not in found}
    if max_norm is None or not finite:
        return found
    # The median stands while fewer than half of the clients send absurd vectors.
    limit = max_norm * statistics.median(finite.values())
    return found | {
        client: f"its task vector has length {size:.3g}, the limit is {limit:.3g}"
        for client, size in finite.items()
        if size > limit > 0
    }


def _length(vector: Float[Tensor, "params"]) -> float:
    """Euclidean length; no float32 overflows in it, so that it is finite exactly when the vector is."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))

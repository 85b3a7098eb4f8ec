"""How much of a client's task vector is its task: what training on either half of its examples agrees on."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.objectives import Objective
from fedpl.records.centring import head_of
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Halves
from fedpl.training.backend import Backend
from fedpl.training.session import Assignment, LocalSession


def halves(
    backend: Backend, clients: Sequence[Assignment], round: int, objective: Objective
) -> dict[str, float]:
    """cos(τ of one half, τ of the other), by client; of those that are asked and have two examples or more.

    The halves share no example, so what their task vectors have in common is what the examples stand for, and
    not which of them the client happens to have. That takes as many steps as training does.

    Args:
        backend: Who trains.
        clients: Who trains together.
        round: Number of the round, from 1.
        objective: What each minimises.
    """
    examples = backend.partitions.examples
    asked = [each for each in clients if each.halves and len(examples[each.client, "train"]) >= 2]
    if not asked:
        return {}
    one, other = (_vectors(LocalSession(backend, asked, round, half), objective) for half in (0, 1))
    found = {}
    for place, each in enumerate(asked):
        assert each.halves is not None
        parts = [_compared(rows[place], each.halves, backend.foundation.layout) for rows in (one, other)]
        found[each.client] = torch.nn.functional.cosine_similarity(parts[0], parts[1], dim=0)
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def _compared(
    vector: Float[Tensor, "params"], about: Halves, layout: AdapterLayout
) -> Float[Tensor, "columns"]:
    """What is compared of a task vector."""
    head = head_of(layout) if about.centred else None
    if head is not None:
        parts, vector = head.centred(vector[None]), vector.clone()
        for entry, part in zip(head, parts, strict=True):
            vector[entry.start : entry.stop] = part[0]
    return torch.cat([vector[start:stop] for start, stop in about.columns])


def _vectors(session: LocalSession, objective: Objective) -> Float[Tensor, "clients params"]:
    return objective(session).theta - session.received

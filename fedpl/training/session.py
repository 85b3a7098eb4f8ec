"""A round's local training of one or more clients on a backend: what their objective is called with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.objectives.models import Models, rows_of
from fedpl.objectives.phases import PLAIN, Mixture, Phase
from fedpl.objectives.session import Fitted, Outcome
from fedpl.records.messages import Halves
from fedpl.training.backend import Backend
from fedpl.training.partitions import Learner
from fedpl.training.settings import ClientConfig


class Assignment(NamedTuple):
    """One client's training in a round.

    Attributes:
        client: Client id.
        received: The client's aggregate θ̄ᵢ.
        state: What the client remembers, by name.
        halves: See `fedpl.records.messages.Work`.
    """

    client: str
    received: Float[Tensor, "params"]
    state: Mapping[str, Tensor] = {}
    halves: Halves | None = None


@dataclass(frozen=True)
class Fit:
    """What a client's local training reports.

    Attributes:
        steps: Optimiser steps taken, in all phases.
        loss: Mean training loss over the main phase's steps.
        tuned: The model that the client uses, if it is not the θᵢ of which it sends τᵢ.
        state: What the client remembers from now on, on the CPU; None: what it did before.
        halves: See `fedpl.records.messages.Report`.
    """

    steps: int
    loss: float
    tuned: Models | None = None
    state: Mapping[str, Tensor] | None = None
    halves: float | None = None


class LocalSession:
    """The clients of a cohort (or one client alone) in one round; see `fedpl.objectives.session.Session`.

    Args:
        backend: Who trains rows.
        clients: Who, from where, remembering what; one per row.
        round: Number of the round, from 1.
        half: Of every client's examples, 0 or 1; None: all are seen.
    """

    def __init__(
        self, backend: Backend, clients: Sequence[Assignment], round: int, half: int | None = None
    ) -> None:
        self.backend = backend
        self.round = round
        self.half = half
        self.layout = backend.foundation.layout
        self.device = backend.foundation.hardware.device
        self._clients = clients
        self._steps = [0] * len(clients)
        self._losses = [0.0] * len(clients)

    @property
    def received(self) -> Float[Tensor, "clients params"]:
        return torch.stack([client.received for client in self._clients]).to(self.device)

    def recall(self, name: str, otherwise: Float[Tensor, "clients ..."]) -> Float[Tensor, "clients ..."]:
        kept = [client.state.get(name) for client in self._clients]
        rows = [otherwise[i] if row is None else row.to(otherwise) for i, row in enumerate(kept)]
        return torch.stack(rows)

    def remembers(self, name: str) -> list[bool]:
        return [name in client.state for client in self._clients]

    def tensors(self, kinds: Sequence[str]) -> frozenset[str]:
        return frozenset(entry.name for entry in self.layout.entries if entry.kind in kinds)

    def top(self, blocks: int) -> frozenset[str]:
        chosen = self.layout.blocks[-blocks:]
        return frozenset(entry.name for entry in self.layout.entries if entry.block in chosen)

    def fit(self, phase: Phase = PLAIN) -> Fitted:
        learners = [self._learner(i, phase) for i in range(len(self._clients))]
        places = sorted(range(len(learners)), key=lambda i: -len(learners[i].order))
        if phase.start is None:
            start = torch.stack([self._clients[i].received for i in places]).to(self.device)
        else:
            start = phase.start[places]
        moved = phase.rows(places)
        losses = [0.0] * len(places)
        if learners[places[0]].order:
            config = _configured(self.backend.partitions.config, phase)
            losses = self.backend.fit(start, [learners[i] for i in places], config, moved)
        for i, loss in zip(places, losses, strict=True):
            self._steps[i] += len(learners[i].order)
            if not phase.name:
                self._losses[i] = loss
        back = sorted(range(len(places)), key=places.__getitem__)
        theta = start if back == places == sorted(back) else start[back]
        share = moved.view.share[back] if isinstance(moved.view, Mixture) else None
        return Fitted(theta, share)

    def close(self, outcome: Outcome, halves: Mapping[str, float] = {}) -> list[Fit]:
        """What each client reports and remembers.

        Args:
            outcome: Of the objective.
            halves: See `Fit`, by client.
        """
        found = []
        for i in range(len(self._clients)):
            tuned = None if outcome.tuned is None else rows_of(outcome.tuned, i)
            state = {name: rows[i].to("cpu", copy=True) for name, rows in outcome.state.items()}
            told = halves.get(self._clients[i].client)
            found.append(Fit(self._steps[i], self._losses[i], tuned, state or None, told))
        return found

    def _learner(self, place: int, phase: Phase) -> Learner:
        client = self._clients[place].client
        epochs = phase.epochs if isinstance(phase.epochs, int | None) else phase.epochs[place]
        learner = self.backend.partitions.learner(
            client, self.round, phase.name, epochs, phase.portion, self.half
        )
        return learner if phase.plain_lr is None else learner._replace(rate=1.0, factors=())


def _configured(config: ClientConfig, phase: Phase) -> ClientConfig:
    """The client's settings, or those of plain gradient steps."""
    if phase.plain_lr is None:
        return config
    rate = phase.plain_lr
    return replace(
        config, lr=rate, head_lr=rate, optimizer="sgd", momentum=0.0, weight_decay=0.0, gradient_clip=0.0
    )

"""A round's local training of one or more clients, as a client's objective sees it: rows of matrices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.clients.duo import Models, rows_of
from fedpl.clients.packing import Learner
from fedpl.clients.phases import PLAIN, Mixture, Phase
from fedpl.config import ClientConfig

if TYPE_CHECKING:
    from fedpl.clients.trainer import ClientTrainer

# Trains rows in place; learners come by descending number of steps. Returns each one's mean loss.
Fitter = Callable[[Tensor, Sequence[Learner], ClientConfig, Phase], list[float]]


class Fitted(NamedTuple):
    """What a phase gives.

    Attributes:
        theta: The trained rows.
        share: The mixture's shares after it, if there is a mixture.
    """

    theta: Float[Tensor, "clients params"]
    share: Float[Tensor, "clients 1"] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a round leaves.

    Attributes:
        theta: θᵢ, of which τᵢ = θᵢ − θ̄ᵢ is sent.
        tuned: The models that the clients use and that are scored; None: θ.
        state: What the clients remember until they next take part, a row each.
    """

    theta: Float[Tensor, "clients params"]
    tuned: Models | None = None
    state: Mapping[str, Float[Tensor, "clients ..."]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """What a client's local training reports.

    Attributes:
        steps: Optimiser steps taken, in all phases.
        loss: Mean training loss over the main phase's steps.
        tuned: The model that the client uses, if it is not the θᵢ of which it sends τᵢ.
    """

    steps: int
    loss: float
    tuned: Models | None = None


class Session:
    """The clients of a cohort (or one client alone) in one round.

    Args:
        trainer: Everybody's tokens and memory, configuration, layout.
        fitter: How rows are trained.
        clients: Who, one per row.
        received: Their aggregates θ̄ᵢ.
        round: Number of the round, from 1.
    """

    def __init__(
        self,
        trainer: "ClientTrainer",
        fitter: Fitter,
        clients: Sequence[str],
        received: Sequence[Float[Tensor, "params"]],
        round: int,
    ) -> None:
        self.trainer = trainer
        self.round = round
        self._fitter = fitter
        self._clients = clients
        self._received = received
        self._steps = [0] * len(clients)
        self._losses = [0.0] * len(clients)

    @property
    def received(self) -> Float[Tensor, "clients params"]:
        """What the clients received; a new matrix each time."""
        return torch.stack(list(self._received)).to(self.trainer.hardware.device)

    def recall(self, name: str, otherwise: Float[Tensor, "clients ..."]) -> Float[Tensor, "clients ..."]:
        """What each client remembers by a name, or the row given for those who remember nothing.

        Args:
            name: Key of `Outcome.state`.
            otherwise: A row for each client.
        """
        kept = [self.trainer.states.get(client, {}).get(name) for client in self._clients]
        rows = [otherwise[i] if row is None else row.to(otherwise) for i, row in enumerate(kept)]
        return torch.stack(rows)

    def remembers(self, name: str) -> list[bool]:
        """Who remembers something by this name."""
        return [name in self.trainer.states.get(client, {}) for client in self._clients]

    def tensors(self, kinds: Sequence[str]) -> frozenset[str]:
        """Names of the adapter's tensors of these kinds."""
        return frozenset(entry.name for entry in self.trainer.layout.entries if entry.kind in kinds)

    def top(self, blocks: int) -> frozenset[str]:
        """Names of the tensors of the last blocks, of which the head is one; 0: of all."""
        chosen = self.trainer.layout.blocks[-blocks:]
        return frozenset(entry.name for entry in self.trainer.layout.entries if entry.block in chosen)

    def fit(self, phase: Phase = PLAIN) -> Fitted:
        """Train every client through a phase."""
        learners = [self._learner(i, phase) for i in range(len(self._clients))]
        places = sorted(range(len(learners)), key=lambda i: -len(learners[i].order))
        if phase.start is None:
            start = torch.stack([self._received[i] for i in places]).to(self.trainer.hardware.device)
        else:
            start = phase.start[places]
        moved = phase.rows(places)
        losses = [0.0] * len(places)
        if learners[places[0]].order:
            config = _configured(self.trainer.config.client, phase)
            losses = self._fitter(start, [learners[i] for i in places], config, moved)
        for i, loss in zip(places, losses, strict=True):
            self._steps[i] += len(learners[i].order)
            if not phase.name:
                self._losses[i] = loss
        back = sorted(range(len(places)), key=places.__getitem__)
        theta = start if back == places == sorted(back) else start[back]
        share = moved.view.share[back] if isinstance(moved.view, Mixture) else None
        return Fitted(theta, share)

    def close(self, outcome: Outcome) -> list[Fit]:
        """Keep what the clients remember, and report."""
        for i, client in enumerate(self._clients):
            if outcome.state:
                kept = {name: rows[i].to("cpu", copy=True) for name, rows in outcome.state.items()}
                self.trainer.states[client] = kept
        models = outcome.tuned
        tuned = [None if models is None else rows_of(models, i) for i in range(len(self._clients))]
        return [Fit(*report) for report in zip(self._steps, self._losses, tuned, strict=True)]

    def _learner(self, place: int, phase: Phase) -> Learner:
        client = self._clients[place]
        epochs = phase.epochs if isinstance(phase.epochs, int | None) else phase.epochs[place]
        learner = self.trainer.learner(client, self.round, phase.name, epochs, phase.portion)
        return learner if phase.plain_lr is None else learner._replace(rate=1.0)


def _configured(config: ClientConfig, phase: Phase) -> ClientConfig:
    """The client's settings, or those of plain gradient steps."""
    if phase.plain_lr is None:
        return config
    rate = phase.plain_lr
    return replace(
        config, lr=rate, head_lr=rate, optimizer="sgd", momentum=0.0, weight_decay=0.0, gradient_clip=0.0
    )

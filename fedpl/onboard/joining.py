"""A newcomer goes through a run's rounds with the task vectors that the others sent then.

In each round it receives its aggregate and trains; its task vector takes its place among the recorded ones,
and the run's own rule compares and weighs them all. Its first round is what the run would have given: nobody
had received anything of it. Later on the others are taken to have sent what they sent without it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.executors.protocol import Executor
from fedpl.interop import borrow
from fedpl.objectives import Objective, Plain
from fedpl.onboard.past import Past
from fedpl.onboard.seat import Seat
from fedpl.records.messages import Begin, Failure, Frozen, Report, Work
from fedpl.records.scores import Scores
from fedpl.rounds.asking import freeze
from fedpl.rounds.vetting import vet
from fedpl.server.state import ServerState

SPLITS = ("validation", "test")


class Joined(NamedTuple):
    """Where a newcomer stands after some rounds.

    Attributes:
        aggregate: θ̄, what it receives next.
        residual: What is added to the frozen weights; None: nothing.
        weights: pₖ of the last round by group and client.
        similarity: sₖ likewise.
        memory: Digest of what it remembers.
    """

    aggregate: Float[Tensor, "params"]
    residual: Float[Tensor, "weights"] | None
    weights: Float[np.ndarray, "groups clients"]
    similarity: Float[np.ndarray, "groups clients"]
    memory: str


class Tuned(NamedTuple):
    """A model after local training.

    Attributes:
        model: θ.
        scores: Of what the client uses then, by split: θ, or its personal model.
        memory: Digest of what it remembers.
    """

    model: Float[Tensor, "params"]
    scores: Mapping[str, Scores]
    memory: str


class Joining:
    """Lets newcomers of one executor join a run, each by itself.

    Args:
        past: The run.
        executor: The way to the newcomers, who live in this process.
        disk: Below which folder matrices lie, where the run keeps them on disk.
    """

    def __init__(self, past: Past, executor: Executor, disk: Path | None = None) -> None:
        self.past = past
        self.executor = executor
        self.disk = disk
        self.census = executor.join()
        self.method = past.config.method

    def join(self, client: str, rounds: int, last: ServerState | None = None) -> Joined:
        """Go through the run's first rounds from θ₀.

        Args:
            client: The newcomer; one of the run's ids takes that client's place.
            rounds: How many.
            last: The run's last state, of which it then takes what those it is like have; None: nothing.

        Raises:
            UserError: If its training fails.
        """
        self.executor.tell(Begin(self.method.name))
        seat, memory = Seat(self.past, self.census, client, self.disk), ""
        for round in seat.rounds(rounds):
            frozen = freeze(self.executor, seat.state)
            work = Work(client, round, seat.received, (), self.method.objective, memory, frozen)
            report = self._train(work._replace(run=self.method.name, halves=seat.halves), seat.row)
            memory = report.memory
            seat.hear(report.halves)
        aggregate, state = (seat.received, seat.state) if last is None else (seat.nearest(last), last)
        residual = None if state.residual is None else borrow(state.residual, aggregate).clone()
        return Joined(aggregate, residual, seat.weights, seat.similarity, memory)

    def tune(self, client: str, joined: Joined, round: int) -> Tuned:
        """One more round of local training from what is received; nothing of it is sent."""
        digest = self.freeze(joined.residual)
        work = Work(client, round, joined.aggregate, SPLITS, self.method.objective, joined.memory, digest)
        return self._alone(work)

    def alone(self, client: str, rounds: int) -> Tuned:
        """So many rounds of plain training from where it begins, without the others."""
        self.freeze(None)
        found = Tuned(self._start(client), {}, "")
        for round in range(1, rounds + 1):
            splits = SPLITS if round == rounds else ()
            objective: Objective = Plain()
            found = self._alone(Work(client, round, found.model, splits, objective, found.memory))
        return found

    def _start(self, client: str) -> Float[Tensor, "params"]:
        """Its own model of the run's beginning, or the mean; θ₀ where the run began there."""
        beginning, names = self.past.beginning, self.past.clients
        if beginning is None:
            return self.census.initial.clone()
        own = beginning.of(names.index(client) if client in names else -1)
        return torch.from_numpy(own).to(self.census.initial.device)

    def score(self, client: str, joined: Joined, split: str) -> Scores | None:
        """Quality of what a newcomer receives; None without examples of the split."""
        self.freeze(joined.residual)
        return self.executor.score([client], joined.aggregate[None], split).get(client)

    def freeze(self, residual: Float[Tensor, "weights"] | None) -> str:
        """Have this on top of the frozen weights from now on; its digest."""
        digest = "" if residual is None else "own"
        self.executor.tell(Frozen(digest, residual))
        return digest

    def _alone(self, work: Work) -> Tuned:
        row = torch.empty_like(work.received)
        report = self._train(work._replace(run=self.method.name, sends=False), row)
        return Tuned(work.received + row, report.scores, report.memory)

    def _train(self, work: Work, row: Float[Tensor, "params"]) -> Report:
        """A newcomer trains in no company: its numbers depend on no other newcomer's."""
        company = self.executor.plan([work])
        (answer,) = self.executor.train([work], company, {work.client: row})
        if isinstance(answer, Failure):
            raise UserError(f"'{work.client}': {answer.reason}") from answer.error
        if wrong := vet([answer], None):
            raise UserError(f"'{work.client}': {wrong[work.client]}; lower client.lr in the run")
        return answer

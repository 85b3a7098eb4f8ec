"""Who trains the clients of a round. The loop knows this protocol, not the executor behind it."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedpl.clients.trainer import ClientTrainer
from fedpl.scores import Scores


class Job(NamedTuple):
    """One client's work in one round.

    Attributes:
        client: Client id.
        row: The client's row in the matrix of task vectors.
        round: Number of the round, from 1.
        received: The client's aggregate θ̄ᵢ.
        splits: Splits on which to score the tuned θᵢ.
    """

    client: str
    row: int
    round: int
    received: Float[Tensor, "params"]
    splits: tuple[str, ...]


class ClientUpdate(NamedTuple):
    """What a client reports beside its task vector.

    Attributes:
        client: Client id.
        row: The row that now holds the task vector.
        examples: Training examples.
        steps: Optimiser steps taken.
        loss: Mean training loss.
        tuned: Scores of the tuned θᵢ by split.
        train_seconds: Time of local training.
        evaluate_seconds: Time of scoring.
    """

    client: str
    row: int
    examples: int
    steps: int
    loss: float
    tuned: dict[str, Scores]
    train_seconds: float
    evaluate_seconds: float


@runtime_checkable
class Executor(Protocol):
    """Trains and scores clients."""

    def train(self, jobs: Iterable[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        """Fill a row of `out` with τᵢ = θᵢ − θ̄ᵢ for each job, in any order."""
        ...

    def score(self, client: str, vector: Float[Tensor, "params"], split: str) -> Scores:
        """Quality of an adapter on one split of one client's data."""
        ...


class LocalExecutor:
    """Trains clients one after another in this process."""

    def __init__(self, trainer: ClientTrainer) -> None:
        self.trainer = trainer

    def train(self, jobs: Iterable[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        for job in jobs:
            row = out[job.row]
            begin = time.perf_counter()
            fit = self.trainer.fit(job.client, job.received, row, job.round)
            trained = time.perf_counter()
            tuned = {split: self.trainer.score(job.client, row, split) for split in job.splits}
            scored = time.perf_counter()
            row -= job.received.to(row.device)
            examples = len(self.trainer.tokens[job.client, "train"])
            yield ClientUpdate(
                job.client, job.row, examples, fit.steps, fit.loss, tuned, trained - begin, scored - trained
            )

    def score(self, client: str, vector: Float[Tensor, "params"], split: str) -> Scores:
        return self.trainer.score(client, vector, split)

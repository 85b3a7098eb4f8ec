"""Who trains the clients of a round. The loop knows this protocol, not the executor behind it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.clients.cohorts import Assignment, CohortTrainer
from fedpl.clients.duo import stack_models
from fedpl.clients.session import Fit
from fedpl.clients.trainer import ClientTrainer
from fedpl.objectives import Objective
from fedpl.scores import Scores


class Job(NamedTuple):
    """One client's work in one round.

    Attributes:
        client: Client id.
        row: The client's row in the matrix of task vectors.
        round: Number of the round, from 1.
        received: The client's aggregate θ̄ᵢ.
        splits: Splits on which to score the tuned θᵢ.
        objective: What to minimise; None: client.objective.
    """

    client: str
    row: int
    round: int
    received: Float[Tensor, "params"]
    splits: tuple[str, ...]
    objective: Objective | None = None


class ClientUpdate(NamedTuple):
    """What a client reports beside its task vector.

    Attributes:
        client: Client id.
        row: The row that now holds the task vector.
        examples: Training examples.
        steps: Optimiser steps taken.
        loss: Mean training loss.
        tuned: Scores of the model that the client uses after training, by split: θᵢ, unless its objective
            keeps a personal model.
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

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs of one round that are trained together; `train` is called with one group at a time.

        Rounding depends on the company: whoever repeats a round must repeat its groups.
        """
        ...

    def capacity(self) -> dict[str, int]:
        """What was chosen for this machine as it is now and decides groups and rounding."""
        ...

    def set_capacity(self, capacity: dict[str, int]) -> None:
        """Use what had been chosen before, from `capacity`."""
        ...

    def train(self, jobs: Iterable[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        """Fill a row of `out` with τᵢ = θᵢ − θ̄ᵢ for each job, in any order."""
        ...

    def score(
        self, clients: Sequence[str], vectors: Float[Tensor, "clients params"], split: str
    ) -> dict[str, Scores]:
        """Quality of one adapter per client on a split of the client's own data."""
        ...

    def losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        """Mean loss of each of several adapters on each client's training data, without dropout."""
        ...

    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        """From now on the frozen weights of the adapted layers are W₀ + residual, for all clients.

        Args:
            residual: One [out, in] matrix per adapted layer, flattened, in the order of the layout's A
                factors; None: W₀ itself again.
        """
        ...

    def client_state(self, client: str) -> dict[str, Tensor]:
        """What a client remembers between rounds, by name, on the CPU; read only."""
        ...

    def load_client_state(self, client: str, state: dict[str, Tensor]) -> None:
        """Make a client remember this and nothing else; a run begins with nothing."""
        ...


class LocalExecutor:
    """Trains clients one after another in this process, by PEFT itself."""

    def __init__(self, trainer: ClientTrainer) -> None:
        self.trainer = trainer

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        return [[job] for job in jobs]

    def capacity(self) -> dict[str, int]:
        return {}

    def set_capacity(self, capacity: dict[str, int]) -> None:
        return

    def train(self, jobs: Iterable[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        for job in jobs:
            row = out[job.row]
            begin = time.perf_counter()
            fit = self.trainer.fit(job.client, job.received, row, job.round, job.objective)
            trained = time.perf_counter()
            model = row if fit.tuned is None else fit.tuned
            tuned = {split: self.trainer.score(job.client, model, split) for split in job.splits}
            scored = time.perf_counter()
            row -= job.received.to(row.device)
            examples = len(self.trainer.tokens[job.client, "train"])
            yield ClientUpdate(
                job.client, job.row, examples, fit.steps, fit.loss, tuned, trained - begin, scored - trained
            )

    def score(
        self, clients: Sequence[str], vectors: Float[Tensor, "clients params"], split: str
    ) -> dict[str, Scores]:
        return {
            client: self.trainer.score(client, vector, split)
            for client, vector in zip(clients, vectors, strict=True)
        }

    def losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        return torch.tensor([[self.trainer.loss(client, vector) for vector in vectors] for client in clients])

    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        self.trainer.shift(residual)

    def client_state(self, client: str) -> dict[str, Tensor]:
        return self.trainer.states.get(client, {})

    def load_client_state(self, client: str, state: dict[str, Tensor]) -> None:
        self.trainer.states[client] = state


class CohortExecutor:
    """Trains and scores many clients at once in this process."""

    def __init__(self, cohorts: CohortTrainer) -> None:
        self.cohorts = cohorts

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        places = self.cohorts.groups([job.client for job in jobs], jobs[0].round) if jobs else []
        return [[jobs[place] for place in members] for members in places]

    def capacity(self) -> dict[str, int]:
        return self.cohorts.capacity()

    def set_capacity(self, capacity: dict[str, int]) -> None:
        self.cohorts.set_capacity(capacity)

    def train(self, jobs: Iterable[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        # What is received are views of the server's matrix: a list of jobs holds no copies.
        alike: dict[tuple[int, Objective | None], list[Job]] = {}
        for job in jobs:
            alike.setdefault((job.round, job.objective), []).append(job)
        for members in alike.values():
            yield from self._train(members, out)

    def _train(self, jobs: list[Job], out: Float[Tensor, "clients params"]) -> Iterator[ClientUpdate]:
        begin = time.perf_counter()
        work = [Assignment(job.client, job.received) for job in jobs]
        for places, theta, fits in self.cohorts.fit(work, jobs[0].round, jobs[0].objective):
            trained = time.perf_counter()
            cohort = [jobs[place] for place in places]
            tuned = self._tuned(cohort, theta, fits)
            scored = time.perf_counter()
            # What the cohort took together is shared out evenly.
            train_seconds, evaluate_seconds = (
                seconds / len(cohort) for seconds in (trained - begin, scored - trained)
            )
            for i, (job, fit) in enumerate(zip(cohort, fits, strict=True)):
                torch.sub(theta[i].to(out.device), job.received.to(out.device), out=out[job.row])
                examples = len(self.cohorts.trainer.tokens[job.client, "train"])
                yield ClientUpdate(
                    job.client,
                    job.row,
                    examples,
                    fit.steps,
                    fit.loss,
                    tuned[i],
                    train_seconds,
                    evaluate_seconds,
                )
            del theta, fits, fit  # as large as the cohort, while the next one trains
            begin = time.perf_counter()

    def _tuned(
        self, cohort: list[Job], theta: Float[Tensor, "clients params"], fits: list[Fit]
    ) -> list[dict[str, Scores]]:
        """Scores of the models that a cohort's clients use after training, by split."""
        tuned: list[dict[str, Scores]] = [{} for _ in cohort]
        for split in dict.fromkeys(split for job in cohort for split in job.splits):
            chosen = [i for i, job in enumerate(cohort) if split in job.splits]
            rows = [theta[i] if (model := fits[i].tuned) is None else model for i in chosen]
            scores = self.cohorts.score([cohort[i].client for i in chosen], stack_models(rows), split)
            for i, found in zip(chosen, scores, strict=True):
                tuned[i][split] = found
        return tuned

    def score(
        self, clients: Sequence[str], vectors: Float[Tensor, "clients params"], split: str
    ) -> dict[str, Scores]:
        return dict(zip(clients, self.cohorts.score(clients, vectors, split), strict=True))

    def losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        return self.cohorts.losses(clients, vectors)

    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        # The twin shares the weights; remembered prefixes come from blocks without any adapted layer.
        self.cohorts.trainer.shift(residual)

    def client_state(self, client: str) -> dict[str, Tensor]:
        return self.cohorts.trainer.states.get(client, {})

    def load_client_state(self, client: str, state: dict[str, Tensor]) -> None:
        self.cohorts.trainer.states[client] = state


def local_executor(trainer: ClientTrainer) -> Executor:
    """The executor in this process that client.cohort_size asks for.

    Raises:
        UserError: If the adapter cannot be stacked.
    """
    if trainer.config.client.cohort_size == 1:
        return LocalExecutor(trainer)
    return CohortExecutor(CohortTrainer(trainer))

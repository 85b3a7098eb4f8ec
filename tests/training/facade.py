"""Local training in the words of the tests: one trainer of clients alone, and one of cohorts beside it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from fedpl.config import Config
from fedpl.data import FederatedData
from fedpl.model.base import PooledClassifier
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import Hardware
from fedpl.objectives import Objective
from fedpl.objectives.models import Duo, Models
from fedpl.randomness import derive_seed
from fedpl.records.scores import Scores
from fedpl.training.alone.backend import Alone
from fedpl.training.partitions import partitions_of
from fedpl.training.session import Assignment, Fit
from fedpl.training.stacked.backend import Stacked
from fedpl.training.worker import Worker


def one(model: Models) -> Models:
    """A client's model as a row."""
    if isinstance(model, torch.Tensor):
        return model[None]
    return model._replace(local=model.local[None], common=model.common[None])


class _Remembering:
    """A worker whose clients' memory is kept here, by client."""

    worker: Worker
    states: dict[str, Mapping[str, torch.Tensor]]

    def _fit(
        self, work: Sequence[Assignment], round: int, objective: Objective | None
    ) -> Iterator[tuple[list[int], torch.Tensor, list[Fit]]]:
        chosen = objective or self.worker.partitions.config.objective
        known = [each._replace(state=self.states.get(each.client, {})) for each in work]
        for places, theta, fits in self.worker.fit(known, round, chosen):
            for place, fit in zip(places, fits, strict=True):
                if fit.state is not None:
                    self.states[work[place].client] = fit.state
            yield places, theta, fits


class ClientTrainer(_Remembering):
    """One client at a time, through PEFT itself."""

    def __init__(
        self, config: Config, data: FederatedData, hardware: Hardware, base: PooledClassifier | None = None
    ) -> None:
        self.config, self.hardware = config, hardware
        self.partitions = partitions_of(
            config.task, config.client, config.model, config.seed, data, config.rounds
        )
        base = base or config.task.base(config.model, data.classes)
        init, shifts = derive_seed(config.seed, "init"), config.aggregator.combine.shifts_base
        self.foundation = Foundation(base, config.lora, config.model.path, init, hardware, shifts)
        self.model, self.layout = self.foundation.model, self.foundation.layout
        self.initial, self.shift = self.foundation.initial, self.foundation.shift
        self.tokens, self.classes = self.partitions.examples, self.partitions.classes
        self.order, self.learner = self.partitions.order, self.partitions.learner
        self.backend = Alone(self.foundation, self.partitions, config.evaluation.batch_size)
        self.worker = Worker(self.backend)
        self.states = {}

    def fit(
        self,
        client: str,
        received: torch.Tensor,
        out: torch.Tensor,
        round: int,
        objective: Objective | None = None,
    ) -> Fit:
        ((_, theta, (fit,)),) = self._fit([Assignment(client, received)], round, objective)
        out.copy_(theta[0])
        return fit

    def score(self, client: str, model: torch.Tensor | Duo, split: str) -> Scores:
        (scores,) = self.worker.score([client], one(model), split)
        return scores

    def loss(self, client: str, vector: torch.Tensor) -> float:
        return float(self.worker.losses([client], vector[None]))


class CohortTrainer(_Remembering):
    """Many clients at once, on the frozen model of another trainer."""

    def __init__(self, trainer: ClientTrainer) -> None:
        self.trainer = trainer
        self.backend = Stacked(trainer.foundation, trainer.partitions)
        self.worker = Worker(self.backend)
        self.states = trainer.states
        self.engine = self.backend.engine
        self.score, self.losses = self.worker.score, self.worker.losses
        self.capacity, self.set_capacity = self.backend.capacity, self.backend.use

    @property
    def size(self) -> int:
        return self.backend.size

    @size.setter
    def size(self, value: int) -> None:
        self.backend._size = value

    @property
    def limits(self) -> Any:
        return self.backend.limits

    @limits.setter
    def limits(self, value: Any) -> None:
        self.backend.limits = value

    def groups(self, clients: Sequence[str], round: int) -> list[list[int]]:
        return [
            [clients.index(client) for client in members] for members in self.worker.groups(clients, round)
        ]

    def fit(
        self, work: Sequence[Assignment], round: int, objective: Objective | None = None
    ) -> Iterator[tuple[list[int], torch.Tensor, list[Fit]]]:
        return self._fit(work, round, objective)

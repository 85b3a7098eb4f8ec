"""What local training needs of the clients: their encoded examples, and what they do in which step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.randomness import derive_seed
from fedpl.tasks import Task
from fedpl.tasks.examples import Examples
from fedpl.tasks.kept import encoded
from fedpl.training.batches import batch_order
from fedpl.training.dealing import two_halves
from fedpl.training.prompts import Prompts, prompts_of
from fedpl.training.settings import ClientConfig, PerClient


class Learner(NamedTuple):
    """A client's part in a phase of training.

    Attributes:
        examples: Training examples.
        order: The examples of each of its steps; its step budget is the length.
        stream: Seed of its dropout in this round.
        rate: Factor on its learning rates.
        classes: Its classes; None: all.
        factors: Schedule of its learning rates: a factor for each step; empty: 1 at all of them.
    """

    examples: Examples
    order: list[list[int]]
    stream: int = 0
    rate: float = 1.0
    classes: tuple[int, ...] | None = None
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Partitions:
    """Every client's data as tensors, with the task and the settings of fine-tuning.

    Attributes:
        task: What is learnt.
        config: How clients fine-tune.
        seed: The run's seed.
        examples: By client and split.
        classes: The classes that each client can answer; None: all.
        rounds: Of the run.
        prompts: What is asked in words; None: nothing.
    """

    task: Task
    config: ClientConfig
    seed: int
    examples: Mapping[tuple[str, str], Examples]
    classes: Mapping[str, tuple[int, ...] | None]
    rounds: int = 1
    prompts: Prompts | None = None

    def order(
        self,
        client: str,
        round: int,
        phase: str = "",
        epochs: int | None = None,
        portion: float = 1.0,
        half: int | None = None,
    ) -> list[list[int]]:
        """The examples of each step of a client's round.

        Args:
            client: Whose round.
            round: Number of the round, from 1.
            phase: Name of the phase within the round; the main phase has none.
            epochs: Passes over the examples; None: client.epochs.
            portion: Of the examples that are used, at least one.
            half: Which half of the examples is there, 0 or 1; None: all are.
        """
        seed = derive_seed(self.seed, _stage("order", phase, half), round, client)
        there = self._half(client, round, half)
        number = len(there)
        epochs = self.config.epochs if epochs is None else epochs
        budgets = (self.config.max_steps, self._own(client).max_steps)
        most = min((budget for budget in budgets if budget is not None), default=None)
        if half is not None:
            # Half of the steps, too, so that a half is to the whole what few examples are to many.
            whole = math.ceil(len(self.examples[client, "train"]) * portion)
            steps = epochs * math.ceil(whole / self.config.batch_size)
            most = math.ceil((steps if most is None else min(steps, most)) / 2)
        if portion < 1.0:
            stream = torch.Generator().manual_seed(derive_seed(self.seed, "portion", round, client))
            chosen = torch.randperm(number, generator=stream).tolist()[: math.ceil(number * portion)]
            there = [there[i] for i in chosen]
        order = batch_order(len(there), self.config.batch_size, epochs, seed, most)
        return [[there[i] for i in batch] for batch in order]

    def learner(
        self,
        client: str,
        round: int,
        phase: str = "",
        epochs: int | None = None,
        portion: float = 1.0,
        half: int | None = None,
    ) -> Learner:
        """A client's part in a phase; arguments as of `order`."""
        order = self.order(client, round, phase, epochs, portion, half)
        return Learner(
            self.examples[client, "train"],
            order,
            derive_seed(self.seed, _stage("dropout", phase, half), round, client),
            self._own(client).rate,
            self.classes[client],
            self.config.rates.factors(round, len(order), self.rounds),
        )

    def _half(self, client: str, round: int, half: int | None) -> Sequence[int]:
        """The examples that are there: all, or half of them, dealt anew in each round."""
        examples = self.examples[client, "train"]
        if half is None:
            return range(len(examples))
        stream = torch.Generator().manual_seed(derive_seed(self.seed, "halves", round, client))
        return two_halves(examples.alike(), stream)[half]

    def _own(self, client: str) -> PerClient:
        return self.config.per_client.get(client, PerClient())


def partitions_of(
    task: Task, config: ClientConfig, model: ModelConfig, seed: int, data: FederatedData, rounds: int
) -> Partitions:
    """Encode every client's splits.

    Args:
        task: What is learnt.
        config: How clients fine-tune.
        model: How texts are encoded.
        seed: The run's seed.
        data: The clients.
        rounds: Of the run.

    Raises:
        UserError: If client.per_client names a client that the data does not have.
    """
    unknown = sorted(set(config.per_client) - set(data.ids))
    if unknown:
        raise UserError(
            f"client.per_client: the data has no client {', '.join(unknown)}; its clients are "
            f"{', '.join(data.ids[:20])}{', ...' if len(data.ids) > 20 else ''}"
        )
    splits = {
        (client.id, split): (getattr(client, split), split != "train")
        for client in data.clients
        for split in ("train", "validation", "test")
    }
    examples = encoded(task.encoder(model), splits)
    masked = config.mask_absent_classes
    classes = {c.id: tuple(sorted(set(c.train.labels))) if masked else None for c in data.clients}
    return Partitions(task, config, seed, examples, classes, rounds, prompts_of(task, model, data))


def _stage(stream: str, phase: str, half: int | None) -> str:
    stage = f"{stream}-{phase}" if phase else stream
    return stage if half is None else f"{stage}-half-{half}"

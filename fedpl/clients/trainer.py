"""Trains and scores clients, one at a time, on one resident copy of the foundation model."""

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging as transformers_logging

from fedpl.clients.adapter import flatten, layout_of, learning, trainable, unflatten
from fedpl.clients.batches import Tokens, batch_order, training_batches
from fedpl.clients.duo import Models, beside
from fedpl.clients.fitting import fit_once
from fedpl.clients.hardware import Hardware
from fedpl.clients.model import PooledClassifier, add_adapter, halve_frozen, load_base, load_tokenizer
from fedpl.clients.module import ClientModule
from fedpl.clients.packing import Learner
from fedpl.clients.phases import Phase
from fedpl.clients.scoring import answers
from fedpl.clients.session import Fit, Session
from fedpl.clients.shift import BaseWeights
from fedpl.config import ClientConfig, Config, PerClient
from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.objectives import Objective
from fedpl.randomness import derive_seed
from fedpl.scores import Scores, score


class ClientTrainer:
    """The model, every client's tokens, and how to train and score.

    Args:
        config: The run.
        data: All clients.
        hardware: Where to train.
        base: The foundation model, where it has been loaded already; it is changed.

    Raises:
        UserError: If client.per_client names a client that the data does not have.

    Attributes:
        states: What each client remembers between rounds, by client and name, on the CPU.
        classes: The classes that each client can answer; None: all.
    """

    def __init__(
        self,
        config: Config,
        data: FederatedData,
        hardware: Hardware,
        base: PooledClassifier | None = None,
    ) -> None:
        _quieten()
        _check_clients(config.client, data)
        self.config = config
        self.hardware = hardware
        tokenizer = load_tokenizer(config.model)
        base = base or load_base(config.model, len(data.classes))
        init = derive_seed(config.seed, "init")
        self.model = add_adapter(base, config.lora, config.model.path, init).to(hardware.device)
        if hardware.precision == "bf16-mixed" and not config.aggregator.combine.shifts_base:
            halve_frozen(self.model)
        self.layout = layout_of(self.model)
        self.tokens = {
            (client.id, split): Tokens(getattr(client, split), tokenizer, config.model.max_length)
            for client in data.clients
            for split in ("train", "validation", "test")
        }
        masked = config.client.mask_absent_classes
        self.classes = {
            client.id: tuple(sorted(set(client.train.labels))) if masked else None for client in data.clients
        }
        self.states: dict[str, dict[str, Tensor]] = {}
        self._base = BaseWeights(self.model, self.layout)

    def initial(self) -> Float[Tensor, "params"]:
        """θ₀, drawn from the seed when the trainer was made; read it before any training."""
        vector = torch.empty(self.layout.size)
        flatten(self.model, self.layout, vector)
        return vector

    def order(
        self, client: str, round: int, phase: str = "", epochs: int | None = None, portion: float = 1.0
    ) -> list[list[int]]:
        """The examples of each step of a client's round.

        Args:
            client: Whose round.
            round: Number of the round, from 1.
            phase: Name of the phase within the round; the main phase has none.
            epochs: Passes over the examples; None: client.epochs.
            portion: Of the examples that are used, at least one.
        """
        config = self.config.client
        seed = derive_seed(self.config.seed, _stage("order", phase), round, client)
        examples = len(self.tokens[client, "train"])
        epochs = config.epochs if epochs is None else epochs
        budgets = (config.max_steps, self._own(client).max_steps)
        most = min((budget for budget in budgets if budget is not None), default=None)
        if portion == 1.0:
            return batch_order(examples, config.batch_size, epochs, seed, most)
        stream = torch.Generator().manual_seed(derive_seed(self.config.seed, "portion", round, client))
        chosen = torch.randperm(examples, generator=stream).tolist()[: math.ceil(examples * portion)]
        order = batch_order(len(chosen), config.batch_size, epochs, seed, most)
        return [[chosen[i] for i in batch] for batch in order]

    def learner(
        self, client: str, round: int, phase: str = "", epochs: int | None = None, portion: float = 1.0
    ) -> Learner:
        """A client's part in a phase; arguments as of `order`."""
        return Learner(
            self.tokens[client, "train"],
            self.order(client, round, phase, epochs, portion),
            derive_seed(self.config.seed, _stage("dropout", phase), round, client),
            self._own(client).rate,
            self.classes[client],
        )

    def fit(
        self,
        client: str,
        received: Float[Tensor, "params"],
        out: Float[Tensor, "params"],
        round: int,
        objective: Objective | None = None,
    ) -> Fit:
        """Fine-tune on one client's training data.

        Args:
            client: Whose data.
            received: The client's aggregate θ̄ᵢ.
            out: Receives the tuned θᵢ; may be a row of a matrix on any device.
            round: Number of the round, from 1.
            objective: What to minimise; None: client.objective.
        """
        session = Session(self, self._fit_rows, [client], [received], round)
        outcome = (objective or self.config.client.objective)(session)
        (fit,) = session.close(outcome)
        out.copy_(outcome.theta[0])
        return fit

    def score(self, client: str, model: Models, split: str) -> Scores:
        """Quality of a model on one split of one client's data.

        Args:
            client: Whose data.
            model: An adapter, or two.
            split: train, validation or test.
        """
        labels: list[int] = []
        found: list[int] = []
        for batch, logits in answers(self, client, model, split):
            labels += batch["labels"].tolist()
            found += logits.argmax(-1).tolist()
        return score(labels, found)

    def loss(self, client: str, vector: Float[Tensor, "params"]) -> float:
        """Mean loss of an adapter on a client's training data, without dropout."""
        total = 0.0
        for batch, logits in answers(self, client, vector, "train"):
            labels = batch["labels"].to(logits.device)
            total += F.cross_entropy(logits.float(), labels, reduction="sum").item()
        return total / len(self.tokens[client, "train"])

    def shift(self, residual: Float[Tensor, "weights"] | None) -> None:
        """From now on the frozen weights of the adapted layers are W₀ + residual, for all clients.

        Args:
            residual: One [out, in] matrix per adapted layer, flattened, in the order of the layout's A
                factors; None: W₀ itself again.
        """
        self._base.shift(residual)

    def _fit_rows(
        self,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        phase: Phase,
    ) -> list[float]:
        """Train rows in place, one after another, by PEFT itself."""
        means = []
        for i, learner in enumerate(learners):
            if not learner.order:
                means.append(0.0)
                continue
            scaled = replace(config, lr=config.lr * learner.rate, head_lr=config.head_lr * learner.rate)
            unflatten(theta[i], self.model, self.layout)
            parameters = trainable(self.model)
            part = phase.rows(slice(i, i + 1))
            second = part.beside and beside(self.model, self.layout, part.beside.other[0], part.beside.share)
            with learning(parameters, phase.train), second or nullcontext():
                module = ClientModule(self.model, parameters, scaled, learner, part)
                loader = training_batches(learner.tokens, learner.order)
                fit_once(module, loader, self.hardware, config.gradient_clip)
            flatten(self.model, self.layout, theta[i])
            means.append(sum(module.losses) / len(module.losses))
        return means

    def _own(self, client: str) -> PerClient:
        return self.config.client.per_client.get(client, PerClient())


def _stage(stream: str, phase: str) -> str:
    return f"{stream}-{phase}" if phase else stream


def _check_clients(config: ClientConfig, data: FederatedData) -> None:
    unknown = sorted(set(config.per_client) - set(data.ids))
    if unknown:
        raise UserError(
            f"client.per_client: the data has no client {', '.join(unknown)}; its clients are "
            f"{', '.join(data.ids[:20])}{', ...' if len(data.ids) > 20 else ''}"
        )


def _quieten() -> None:
    """One line per client and round about devices would drown a run's own output."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
